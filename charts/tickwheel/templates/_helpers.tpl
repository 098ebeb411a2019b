{{- define "tickwheel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* At most 40 characters, so that what is appended still makes a name. */ -}}
{{- define "tickwheel.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tickwheel.selector" -}}
app.kubernetes.io/name: {{ include "tickwheel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tickwheel.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "tickwheel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tickwheel
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tickwheel.labels" -}}
{{ include "tickwheel.commonLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tickwheel.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "tickwheel.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "tickwheel.subjects" -}}
- kind: ServiceAccount
  name: {{ include "tickwheel.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "tickwheel.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "tickwheel.pullSecrets" -}}
{{- with concat ((.Values.global | default dict).imagePullSecrets | default list) .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* "15s", "400ms", "1m", "1h" in milliseconds; the schema has let nothing else in. */ -}}
{{- define "tickwheel.milliseconds" -}}
{{- if hasSuffix "ms" . }}{{ trimSuffix "ms" . }}
{{- else if hasSuffix "s" . }}{{ mul (trimSuffix "s" .) 1000 }}
{{- else if hasSuffix "m" . }}{{ mul (trimSuffix "m" .) 60000 }}
{{- else }}{{ mul (trimSuffix "h" .) 3600000 }}
{{- end }}
{{- end }}

{{- /* "256Mi", "1Gi" in bytes. */ -}}
{{- define "tickwheel.bytes" -}}
{{- if hasSuffix "Gi" . }}{{ mul (trimSuffix "Gi" .) 1073741824 }}
{{- else }}{{ mul (trimSuffix "Mi" .) 1048576 }}
{{- end }}
{{- end }}

{{- define "tickwheel.serviceUrl" -}}
{{- .Values.gateway.serviceUrl | default (printf "https://%s.%s.svc:%d" (include "tickwheel.fullname" .) .Release.Namespace (int .Values.gateway.port)) }}
{{- end }}

{{- /* The Secret that is mounted; empty: the operator makes its certificates. */ -}}
{{- define "tickwheel.tlsSecret" -}}
{{- if eq .Values.tls.mode "certManager" }}
{{- printf "%s-gateway-tls" (include "tickwheel.fullname" .) }}
{{- else if eq .Values.tls.mode "existingSecret" }}
{{- required "tls.existingSecret.name is needed with tls.mode existingSecret: the Secret with tls.crt and tls.key" .Values.tls.existingSecret.name }}
{{- end }}
{{- end }}

{{- define "tickwheel.caKey" -}}
{{- ternary "ca.crt" .Values.tls.existingSecret.caKey (eq .Values.tls.mode "certManager") }}
{{- end }}

{{- define "tickwheel.testNamespace" -}}
{{- .Values.test.namespace | default (first .Values.watchNamespaces) | default .Release.Namespace }}
{{- end }}

{{- /* Given `root` and `weight`. All are removed when the test has succeeded, and before the next one. */ -}}
{{- define "tickwheel.testMetadata" }}
  labels:
    {{- include "tickwheel.commonLabels" .root | nindent 4 }}
    app.kubernetes.io/component: test
  annotations:
    helm.sh/hook: test
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
