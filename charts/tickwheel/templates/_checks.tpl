{{- /* What single values cannot say and a schema cannot compare: a release that could not work is not made. The operator
     checks its own settings too (Settings.faults), but then its pods crash. */ -}}
{{- define "tickwheel.checks" -}}
{{- with .Values.election }}
{{- $lease := include "tickwheel.milliseconds" .leaseDuration | int }}
{{- $deadline := include "tickwheel.milliseconds" .renewDeadline | int }}
{{- $retry := include "tickwheel.milliseconds" .retryPeriod | int }}
{{- if mod $lease 1000 }}
{{- fail (printf "election.leaseDuration is %s: a Lease has whole seconds, for example 15s" .leaseDuration) }}
{{- end }}
{{- if le $lease $deadline }}
{{- fail (printf "election.leaseDuration (%s) must be more than election.renewDeadline (%s), for example 15s and 10s: else a follower takes over from a leader that still works" .leaseDuration .renewDeadline) }}
{{- end }}
{{- if le (mul $deadline 10) (mul $retry 12) }}
{{- fail (printf "election.renewDeadline (%s) must be more than 1.2 times election.retryPeriod (%s), for example 10s and 2s: else a leader gives up between two tries" .renewDeadline .retryPeriod) }}
{{- end }}
{{- end }}
{{- $attempt := include "tickwheel.milliseconds" .Values.engine.attemptLease | int }}
{{- if or (lt $attempt 1000) (gt $attempt 600000) }}
{{- fail (printf "engine.attemptLease is %s; allowed are 1s to 10m, for example 15s" .Values.engine.attemptLease) }}
{{- end }}
{{- if lt (include "tickwheel.bytes" .Values.ledger.maxBytes | int64) 67108864 }}
{{- fail (printf "ledger.maxBytes is %s; allowed are 64Mi and more, for example 256Mi: less than what checkpoints take" .Values.ledger.maxBytes) }}
{{- end }}
{{- if eq (int .Values.gateway.port) (int .Values.metrics.port) }}
{{- fail (printf "gateway.port and metrics.port are both %d; a pod needs two ports, for example 8443 and 9090" (int .Values.gateway.port)) }}
{{- end }}
{{- with .Values.tls.auto }}
{{- if gt (mulf .publishMinutes 4) (mulf .caDays 1440) }}
{{- fail (printf "tls.auto.publishMinutes (%v) may be a quarter of tls.auto.caDays (%v) at most, for example 60 and 365" .publishMinutes .caDays) }}
{{- end }}
{{- if gt (float64 .leafDays) (float64 .caDays) }}
{{- fail (printf "tls.auto.leafDays (%v) may not be more than tls.auto.caDays (%v), for example 30 and 365" .leafDays .caDays) }}
{{- end }}
{{- end }}
{{- with .Values.tls.certManager }}
{{- if le (include "tickwheel.goSeconds" .duration | int64) (include "tickwheel.goSeconds" .renewBefore | int64) }}
{{- fail (printf "tls.certManager.renewBefore (%s) must be less than tls.certManager.duration (%s), for example 720h and 2160h" .renewBefore .duration) }}
{{- end }}
{{- end }}
{{- with .Values.metrics }}
{{- if and .serviceMonitor.enabled (not .service.enabled) }}
{{- fail "metrics.serviceMonitor.enabled needs metrics.service.enabled: a ServiceMonitor finds the pods by that Service" }}
{{- end }}
{{- if gt (include "tickwheel.milliseconds" .serviceMonitor.scrapeTimeout | int) (include "tickwheel.milliseconds" .serviceMonitor.interval | int) }}
{{- fail (printf "metrics.serviceMonitor.scrapeTimeout (%s) may not be longer than metrics.serviceMonitor.interval (%s), for example 10s and 30s" .serviceMonitor.scrapeTimeout .serviceMonitor.interval) }}
{{- end }}
{{- end }}
{{- with .Values.updateStrategy }}
{{- if and (ne .type "Recreate") .rollingUpdate (has (toString .rollingUpdate.maxUnavailable) (list "0" "0%")) (has (toString .rollingUpdate.maxSurge) (list "0" "0%")) }}
{{- fail "updateStrategy.rollingUpdate: maxUnavailable and maxSurge are both 0, so no replica could be replaced; give one of them 1" }}
{{- end }}
{{- end }}
{{- $test := .Values.test.namespace }}
{{- if and .Values.test.enabled $test .Values.watchNamespaces (not (has $test .Values.watchNamespaces)) }}
{{- fail (printf "test.namespace is %s, which the operator does not serve: add it to watchNamespaces (%s), or leave it empty" $test (join ", " .Values.watchNamespaces)) }}
{{- end }}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{- range $of := list "commonLabels" "podLabels" }}
{{- if hasKey (get $.Values $of) $label }}
{{- fail (printf "%s has the label %s, by which the chart's objects find each other; leave it out, or set nameOverride" $of $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* "2160h", "1h30m" in seconds. */ -}}
{{- define "tickwheel.goSeconds" -}}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+[hms]" . -1 }}
{{- $unit := trimAll "0123456789" . }}
{{- $seconds = add $seconds (mul (trimSuffix $unit .) (get (dict "h" 3600 "m" 60 "s" 1) $unit)) }}
{{- end }}
{{- $seconds }}
{{- end }}
