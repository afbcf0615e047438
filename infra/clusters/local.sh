#!/usr/bin/env bash
# A Ray cluster on this machine that outlives the commands that use it: a head with a job server, further nodes, a token.
#
#   infra/clusters/local.sh start [NODES]   # NODES, 1 by default, share the machine's CPUs; the first is the head
#   infra/clusters/local.sh env             # what reaches it: eval "$(infra/clusters/local.sh env)"
#   infra/clusters/local.sh stop            # ends what 'start' started, and no other Ray
#
# RAYRAMID_CLUSTER names the folder of its token, logs and process ids; two folders are two clusters.
# RAY_PORT (6379), DASHBOARD_PORT (8265) and CLIENT_PORT (10001) are its ports. The dashboard listens on 127.0.0.1, and
# every port of Ray wants the token.
set -euo pipefail

cluster=${RAYRAMID_CLUSTER:-/tmp/rayramid-cluster-$UID} # short, since Ray's sockets live below it
port=${RAY_PORT:-6379}
dashboard_port=${DASHBOARD_PORT:-8265}

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$cluster/token RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS

start() {
  local nodes=${1:-1} cpus
  if [[ -e $cluster/pids ]]; then
    echo "error: a cluster is in $cluster; stop it first, or name another folder by RAYRAMID_CLUSTER" >&2
    exit 2
  fi
  mkdir -p -m 700 "$cluster"
  (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$cluster/token")
  cpus=$((($(nproc) + nodes - 1) / nodes))
  node "$cpus" --head --port="$port" --temp-dir="$cluster/ray" \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" --ray-client-server-port="${CLIENT_PORT:-10001}"
  until_started 1
  for ((i = 0; i < 240; i++)); do
    alive || fail
    ! (exec 3<>"/dev/tcp/127.0.0.1/$dashboard_port") 2>/dev/null || break
    sleep 0.5
  done
  ((i < 240)) || fail
  for ((i = 1; i < nodes; i++)); do
    node "$cpus" --address="127.0.0.1:$port"
  done
  until_started "$nodes"
  show_env
}

# Returns when $1 nodes say that they are up.
until_started() {
  until (($(grep -c 'Ray runtime started' "$cluster/log" || true) >= $1)); do
    alive || fail
    sleep 0.5
  done
}

# Starts a node of $1 CPUs in the background; it ends with its first process.
node() {
  local cpus=$1
  shift
  setsid ray start --block --num-cpus="$cpus" --object-store-memory=300000000 \
    --dashboard-agent-listen-port=0 "$@" >>"$cluster/log" 2>&1 </dev/null &
  echo $! >>"$cluster/pids"
}

alive() {
  local pid
  while read -r pid; do kill -0 "$pid" 2>/dev/null || return 1; done <"$cluster/pids"
}

fail() {
  echo "error: a node did not come up; $cluster/log and $cluster/ray/session_latest/logs tell why" >&2
  tail -n 5 "$cluster/log" >&2
  exit 3
}

stop() {
  local pid
  [[ -e $cluster/pids ]] || return 0
  # A node's processes are of one group, whose leader ends them when it is asked to.
  while read -r pid; do kill -TERM "$pid" 2>/dev/null || true; done <"$cluster/pids"
  for ((i = 0; i < 20; i++)); do
    any || break
    sleep 0.5
  done
  while read -r pid; do kill -KILL -- "-$pid" 2>/dev/null || true; done <"$cluster/pids"
  rm -rf "$cluster"
}

any() {
  local pid
  while read -r pid; do ! kill -0 "$pid" 2>/dev/null || return 0; done <"$cluster/pids"
  return 1
}

show_env() {
  echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$cluster/token"
  echo "export RAY_ADDRESS=127.0.0.1:$port RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard_port"
}

case ${1:-} in
  start) start "${2:-1}" ;;
  env) show_env ;;
  stop) stop ;;
  *)
    sed -n '4,6s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
