# Steps with a name, a time and a verdict. Sourced by scripts/test.
#
# A step that the rest stands on is run with `must`: its failure ends the run. The others are run with
# `step`: their failure is remembered, the run goes on, and `verdict` tells at the end.

STEP_NAMES=()
STEP_RESULTS=()
FAILED=0

say() { printf '%s\n' "$*"; }

fail() {
    printf 'scripts/test: %s\n' "$*" >&2
    exit 1
}

step() {
    local name=$1 began=$SECONDS status=0
    shift
    say ""
    say "== $name"
    "$@" || status=$?
    local took=$((SECONDS - began))
    STEP_NAMES+=("$name")
    if [ "$status" -eq 0 ]; then
        STEP_RESULTS+=("ok, $took s")
        say "== $name: ok, $took s"
    else
        STEP_RESULTS+=("FAILED with $status, $took s")
        say "== $name: FAILED with $status, $took s"
        FAILED=1
    fi
    return "$status"
}

must() {
    step "$@" || { verdict; exit 1; }
}

verdict() {
    local i
    say ""
    for i in "${!STEP_NAMES[@]}"; do
        printf '%-44s %s\n' "${STEP_NAMES[$i]}" "${STEP_RESULTS[$i]}"
    done
    say "total: $SECONDS s"
    return "$FAILED"
}
