{{/* Labels of an object. Takes a dict of root and component. */}}
{{- define "gyrfalcon.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "gyrfalcon.podLabels" . }}
{{- end }}

{{/* Labels of a pod: without the release and the chart, so that a new chart alone restarts nothing. */}}
{{- define "gyrfalcon.podLabels" -}}
{{ include "gyrfalcon.selector" . }}
app.kubernetes.io/part-of: gyrfalcon
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which pods are found. Never to be changed: selectors are immutable. */}}
{{- define "gyrfalcon.selector" -}}
app.kubernetes.io/name: gyrfalcon
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image by digest if there is one, by tag otherwise. Takes a dict of root and the image's name. */}}
{{- define "gyrfalcon.image" -}}
{{- $image := index .root.Values.image .name -}}
{{- $registry := .root.Values.global.imageRegistry | default .root.Values.image.registry -}}
{{- if $registry }}{{ printf "%s/" (trimSuffix "/" $registry) }}{{ end }}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}
{{- else }}{{ printf "%s:%s" $image.repository ($image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* What pods of the API server's caller and callee need to be named in a NetworkPolicy. */}}
{{- define "gyrfalcon.apiServerPeers" -}}
{{- range .Values.networkPolicy.apiServerCIDRs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* Container settings that a restricted namespace asks for. */}}
{{- define "gyrfalcon.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Pod settings that a restricted namespace asks for. */}}
{{- define "gyrfalcon.restrictedPod" -}}
runAsNonRoot: true
{{- if not .Values.openshift.enabled }}
runAsUser: {{ .Values.operator.runAsUser }}
runAsGroup: {{ .Values.operator.runAsUser }}
fsGroup: {{ .Values.operator.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
