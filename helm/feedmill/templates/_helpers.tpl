{{- define "feedmill.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "feedmill.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "feedmill.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "feedmill.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "feedmill.operator" -}}
{{ include "feedmill.fullname" . }}-operator
{{- end }}

{{- define "feedmill.account" -}}
{{- if .Values.serviceAccount.name }}
{{- .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}
{{- include "feedmill.operator" . }}
{{- else }}
{{- fail "serviceAccount.create is false: give serviceAccount.name, the account that exists" }}
{{- end }}
{{- end }}

{{- define "feedmill.selector" -}}
app.kubernetes.io/name: {{ include "feedmill.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "feedmill.labels" -}}
app.kubernetes.io/name: {{ include "feedmill.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: feedmill
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* (root, image values) -> reference */ -}}
{{- define "feedmill.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- /* Restricted Pod Security. */ -}}
{{- define "feedmill.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "feedmill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What the operator does in a namespace it watches; see feedmill_operator/kube/kinds.py. */ -}}
{{- define "feedmill.rules" -}}
- apiGroups: [feedmill.dev]
  resources: [exchangefeeds, feedpipelines, exchangeaccounts, feedbackups, feedrestores]
  verbs: [get, list, watch]
- apiGroups: [feedmill.dev]
  resources: [exchangefeeds/status, feedpipelines/status, exchangeaccounts/status, feedbackups/status, feedrestores/status]
  verbs: [patch]
# Those of a pipeline's schedules are its own.
- apiGroups: [feedmill.dev]
  resources: [feedbackups, feedrestores]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, update, delete]
# RBAC cannot limit Secrets by label: it lists and watches those labelled feedmill.dev/watch, gets those that specs name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [batch]
  resources: [jobs, cronjobs]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: [get, list, watch, create, patch, update, delete]
# The operator's own Lease, watched to prove that its watches hear.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "feedmill.operator" . }}]
  verbs: [list, watch]
{{- end }}
