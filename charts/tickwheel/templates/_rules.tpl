{{- /* What the operator needs wherever it serves objects: in a ClusterRole, or in a Role of each namespace. */ -}}
{{- define "tickwheel.servingRules" -}}
# Specs are read, statuses are written; specs never.
- apiGroups: [tickwheel.io]
  resources: [scheduledtasks, workerpools, workflows, workflowruns, calendars, alertchannels]
  verbs: [get, list, watch]
- apiGroups: [tickwheel.io]
  resources:
    - scheduledtasks/status
    - workerpools/status
    - taskruns/status
    - workflows/status
    - workflowruns/status
    - calendars/status
    - alertchannels/status
  verbs: [patch]
# TaskRun objects are requests of users and views of the operator.
- apiGroups: [tickwheel.io]
  resources: [taskruns]
  verbs: [get, list, watch, create, delete]
# A worker whose pod is gone is lost at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Which worker pods go first when a pool shrinks: the annotation controller.kubernetes.io/pod-deletion-cost.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
# What worker pods use, where the cluster has a metrics server.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
# Whose pod a worker's token is bound to: pod, ReplicaSet, Deployment (below), WorkerPool.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get]
# Workers: a Deployment for each WorkerPool with a template. Deployments cannot be told apart by name here; what the
# operator puts into them is bounded by its rules for templates (docs/workerpools.md).
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# So that a Deployment can hold up the deletion of the pool that owns it (blockOwnerDeletion).
- apiGroups: [tickwheel.io]
  resources: [workerpools/finalizers]
  verbs: [update]
# The authority of the gateway's certificate, for the workers of each namespace, and the mark of who serves it.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [tickwheel-ca, tickwheel-owner]
  verbs: [list, create, patch]
# What happened is told in Events; why a worker pod waits for its volumes, kubelet says in Events only (list).
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch, list]
{{- end }}

{{- /* Election, ledger and the authority's key live in the operator's own namespace only. */ -}}
{{- define "tickwheel.ownRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update, watch]
# A leader whose container ended is replaced at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [watch]
{{- if eq .Values.tls.mode "auto" }}
# The authority of the gateway's certificate. A name cannot be asked for before there is one, hence create by itself.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [tickwheel-ca]
  verbs: [get, update]
{{- end }}
# Segments are never changed: no update, no patch.
- apiGroups: [tickwheel.io]
  resources: [ledgersegments]
  verbs: [get, list, create, delete, deletecollection]
{{- if .Values.watchNamespaces }}
# Who leads since when.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- end }}

{{- /* Questions to the API server that belong to no namespace: who a caller is, and what RBAC lets it do. */ -}}
{{- define "tickwheel.reviewRules" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
# Whether another release that serves a namespace is still there: only the Leases of that name, and only to read.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [tickwheel-partition-0]
  verbs: [get]
{{- end }}
