"""The texts of the cluster files: relative path to YAML, with `$name` for each fact of `clusters.ClusterFacts`."""

_HEAD = """\
# Model $model_name, version $version: {what}.
# Written by tdsp_vision.deployment.clusters: change the settings there, not this file.
# Validated against the schema, not run on a cluster.
"""

_DEPLOYMENT = """\
# The cluster pulls the image: push it to a registry that the cluster can reach, and name it with that registry.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: $model_name
  labels: $labels
spec:
  # No `replicas`: the autoscaler owns the number, and each `kubectl apply` would set it back.
  selector:
    matchLabels: $selector  # without the version: a Deployment's selector can never change
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}  # a new version answers before an old one goes
  template:
    metadata:
      labels: $labels
    spec:
      automountServiceAccountToken: false  # the server never calls the cluster
      enableServiceLinks: false  # keeps the addresses of other services out of its environment
      shareProcessNamespace: true  # the server is then not process 1, which would not hear the signal to stop
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: $user_id
        runAsGroup: $user_id
        seccompProfile: {type: RuntimeDefault}
      topologySpreadConstraints:  # a lost machine should not take all replicas with it
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: $selector
      containers:
        - name: server
          image: $image
          imagePullPolicy: IfNotPresent
          ports:
            - {name: rest, containerPort: $rest_port}
            - {name: grpc, containerPort: $grpc_port}
          resources:  # requests equal limits, so the machine is never overbooked and latency stays steady
            requests: {cpu: "$cpus", memory: ${memory_mib}Mi}
            limits: {cpu: "$cpus", memory: ${memory_mib}Mi}
          # The metadata answers only when the model is loaded; the status answers 200 in any state.
          startupProbe:  # up to five minutes to load and warm up
            httpGet: {path: /v1/models/$model_name/metadata, port: rest}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: /v1/models/$model_name/metadata, port: rest}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          # No liveness probe: it would kill a busy server just when it is needed; a crash ends the container anyway.
          lifecycle:
            preStop:
              exec: {command: [sleep, "10"]}  # answers on until no load balancer sends it requests any more
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}  # the only place it can write
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: ${tmp_mib}Mi}
"""

_SERVICE = """\
# gRPC keeps one connection open, so its requests stay on one replica; REST is spread with each new connection.
apiVersion: v1
kind: Service
metadata:
  name: $model_name
  labels: $labels
spec:
  type: ClusterIP  # inside the cluster only; what opens it to the world has to bring TLS and a login
  selector: $selector
  ports:
    - {name: rest, port: $rest_port, targetPort: rest, appProtocol: http}
    - {name: grpc, port: $grpc_port, targetPort: grpc, appProtocol: kubernetes.io/h2c}
"""

_AUTOSCALER = """\
# Needs the metrics server in the cluster.
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: $model_name
  labels: $labels
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: $model_name
  minReplicas: $replicas
  maxReplicas: $max_replicas
  metrics:  # scoring is bound by the processor, so its load says when one more replica is needed
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: 70}  # room for the time that a new replica takes to load
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300  # a short lull does not undo what takes a minute to build up
"""

_DISRUPTION_BUDGET = """\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: $model_name
  labels: $labels
spec:
  maxUnavailable: 1  # and not `minAvailable: 1`, which with one replica would stop a machine from being emptied
  selector:
    matchLabels: $selector
"""

_INFERENCE_SERVICE = """\
# Instead of kubernetes/: KServe makes deployment, service and autoscaler of it and loads the model from storage.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: $model_name  # also the model's name in the URL
  labels: $labels
spec:
  predictor:
    minReplicas: $replicas
    # No scaleMetric: which ones are allowed depends on how KServe was installed (with Knative or without).
    maxReplicas: $max_replicas
    automountServiceAccountToken: false  # the server never calls the cluster
    model:
      modelFormat: {name: tensorflow}
      protocolVersion: v1
      runtimeVersion: "$serving_version"  # KServe's own default, 2.6.2, is years older than the model
      storageUri: "$storage_uri"  # the folder that holds the numbered versions, not a version itself
      resources:
        requests: {cpu: "$cpus", memory: ${memory_mib}Mi}
        limits: {cpu: "$cpus", memory: ${memory_mib}Mi}
      securityContext:  # here and not on the pod, whose other containers are KServe's
        runAsNonRoot: true
        runAsUser: $user_id
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
        seccompProfile: {type: RuntimeDefault}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}  # the only place it can write
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: ${tmp_mib}Mi}
"""

_COMPOSE = """\
# Start: docker compose up --detach --wait. Stop: docker compose down.
name: $model_name
services:
  server:
    image: $image  # the health check is the image's own
    deploy:
      replicas: $replicas
      resources:
        limits: {cpus: "$cpus", memory: ${memory_mib}M, pids: $pids}
    ports:  # one port for each replica, on this machine only; the client takes turns
      - {target: $rest_port, published: "$published", host_ip: 127.0.0.1}
    user: "$user_id:$user_id"
    init: true  # a process 1 that passes signals on: without it, stopping takes ten seconds
    read_only: true
    memswap_limit: ${memory_mib}m  # the same number as above: no swap beyond it
    tmpfs: ["/tmp:rw,noexec,nosuid,size=${tmp_mib}m"]  # the only place it can write
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    restart: unless-stopped
"""

TEMPLATES = {
    name: _HEAD.format(what=what) + text
    for name, what, text in (
        ("kubernetes/deployment.yaml", "the servers", _DEPLOYMENT),
        ("kubernetes/service.yaml", "one address for all servers", _SERVICE),
        ("kubernetes/autoscaler.yaml", "as many servers as the load needs", _AUTOSCALER),
        ("kubernetes/disruption_budget.yaml", "maintenance takes one server at a time", _DISRUPTION_BUDGET),
        ("kserve/inference_service.yaml", "the same service on KServe", _INFERENCE_SERVICE),
        ("compose.yaml", "the same service on one machine with Docker Compose", _COMPOSE),
    )
}
