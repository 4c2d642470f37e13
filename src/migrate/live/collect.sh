#!/bin/sh
# Prints what a Docker Swarm runs as one JSON document, for `cairn migrate swarm`.
#
#   sh collect.sh [STACK] > swarm.json
#
# Run it on a manager node. It only reads: `docker ... ls` and `docker ... inspect`. With STACK it prints that stack and what the stack
# uses, without it everything. The document has no payload of a secret, but it has the variables of the services and the contents of
# configs: store it as you store passwords.
#
# Exit codes: 0 done, 1 Docker failed, 2 wrong use, 3 Docker is not there or this node is not a manager.

set -u

explain() {
    printf 'collect.sh: %s\n' "$1" >&2
}

stack=${1-}
case $stack in
    *[!A-Za-z0-9._-]*)
        explain "'$stack' is not the name of a stack; docker stack ls lists them"
        exit 2
        ;;
esac
if [ $# -gt 1 ]; then
    explain 'expected at most one stack: sh collect.sh [STACK] > swarm.json'
    exit 2
fi

if ! command -v docker > /dev/null 2>&1; then
    explain 'docker is not in PATH; run this on a manager node of the swarm'
    exit 3
fi
if ! control=$(docker info --format '{{.Swarm.ControlAvailable}}'); then
    explain 'docker info failed, see above; is the Docker daemon running, and may this user reach it?'
    exit 3
fi
if [ "$control" != true ]; then
    explain 'this node is not a manager of a swarm; run this on a node that docker node ls works on'
    exit 3
fi
if ! version=$(docker version --format '{{.Server.APIVersion}}'); then
    explain 'docker version failed, see above'
    exit 1
fi

# IDs of one kind: `list service ls ...`
list() {
    if ! docker "$@"; then
        explain "docker $* failed, see above"
        return 1
    fi
}

# The array of one kind, or an empty one: `inspect service ID ...`
inspect() {
    kind=$1
    shift
    if [ $# -eq 0 ]; then
        printf '[]\n'
    elif ! docker "$kind" inspect "$@"; then
        explain "docker $kind inspect failed, see above; when something was removed meanwhile, run this again"
        return 1
    fi
}

# Each word once.
unique() {
    printf '%s\n' "$@" | sort -u
}

# What the chosen services refer to, by a template of docker service inspect.
referred() {
    if [ -n "$services" ]; then
        # shellcheck disable=SC2086 # IDs have no blanks.
        list service inspect --format "$1" $services
    fi
}

in_container='{{with .Spec.TaskTemplate.ContainerSpec}}'
if [ -n "$stack" ]; then
    label="label=com.docker.stack.namespace=$stack"
    services=$(list service ls --quiet --filter "$label") || exit 1
    if [ -z "$services" ]; then
        explain "there is no service of a stack '$stack'; docker stack ls lists the stacks"
        exit 2
    fi
    networks=$(list network ls --quiet --no-trunc --filter scope=swarm --filter "$label") || exit 1
    volumes=$(list volume ls --quiet --filter "$label") || exit 1
    configs=$(list config ls --quiet --filter "$label") || exit 1
    secrets=$(list secret ls --quiet --filter "$label") || exit 1
    here=$(list volume ls --quiet) || exit 1
    mounted=$(referred "$in_container{{range .Mounts}}{{if eq (print .Type) \"volume\"}}{{.Source}}{{println}}{{end}}{{end}}{{end}}") || exit 1
    for volume in $here; do
        # A mounted volume of another owner.
        if printf '%s\n' "$mounted" | grep -Fqx -e "$volume"; then
            volumes="$volumes $volume"
        fi
    done
    more=$(referred "$in_container{{range .Configs}}{{println .ConfigID}}{{end}}{{end}}") || exit 1
    configs="$configs $more"
    more=$(referred "$in_container{{range .Secrets}}{{println .SecretID}}{{end}}{{end}}") || exit 1
    secrets="$secrets $more"
else
    services=$(list service ls --quiet) || exit 1
    networks=$(list network ls --quiet --no-trunc --filter scope=swarm) || exit 1
    volumes=$(list volume ls --quiet) || exit 1
    configs=$(list config ls --quiet) || exit 1
    secrets=$(list secret ls --quiet) || exit 1
fi
# The networks `host` and `bridge` of the swarm are in no list, and are known by their IDs in services only.
more=$(referred '{{range .Spec.TaskTemplate.Networks}}{{println .Target}}{{end}}') || exit 1
networks="$networks $more"
nodes=$(list node ls --quiet) || exit 1

printf '{"cairn_swarm": 1,\n"api_version": "%s",\n"collected": "%s"' "$version" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
for kind in service network volume config secret node; do
    case $kind in
        service) ids=$services ;;
        network) ids=$networks ;;
        volume) ids=$volumes ;;
        config) ids=$configs ;;
        secret) ids=$secrets ;;
        node) ids=$nodes ;;
    esac
    printf ',\n"%ss":\n' "$kind"
    # shellcheck disable=SC2046,SC2086 # Names and IDs have no blanks.
    inspect "$kind" $(unique $ids) || exit 1
done
printf '}\n'

explain 'volumes: only those of this node are described; those of other nodes are known from the mounts of the services'
