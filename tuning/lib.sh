# shellcheck shell=bash
# What the tuners have in common. Each tuner sources this file, defines `settings`, and ends with
# `tuner "$@"`; tuning/check, apply and revert end with `every_tuner ACTION "$@"`.
#
# A tuner is a table: `settings` adds a row for each thing that it wants to be so, for the profile
# in $PROFILE, and nothing else. Rows are of a kind; a kind is a pair of functions that read and
# write one target:
#
#   file      one line                                     choice    [chosen] others
#   mask      CPUs as hexadecimal words                    text      a whole file of ours
#   grub      the same, and the boot menu is made anew     atime     an option of a mount
#   discard   another one                                  task      the CPUs of a thread
#
# What holds:
#   - Only `apply` and `revert` change anything, and only as root.
#   - What was there is recorded before it is changed, once: a second `apply` doesn't overwrite it.
#     What a change of one setting does to another (`want_with`) is recorded with it.
#   - `revert` writes until everything recorded is as it was, reads it back, and forgets it. What it
#     couldn't restore stays recorded.
#   - What was recorded and is no longer wanted (another profile) is restored by `apply`.
#   - A row that can't be read here is told with the reason and isn't tried.
#   - A failed row ends its tuner: the rows after it are told as not tried.
#
# With OTTLA_TUNING_ROOT everything is read and written below that directory, and commands are those
# in its bin/: the tests' machine. State is one file for each tuner in OTTLA_TUNING_STATE, by default
# /var/lib/ottla/tuning: lines of kind, target and value, split by tabs, after the id of the boot in
# which they were written. Another boot has restored all but files by itself, and may have given
# interrupts and devices other numbers: then only files are still recorded.
set -uo pipefail
shopt -s extglob

HERE=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
ROOT=${OTTLA_TUNING_ROOT:-}
STATE=${OTTLA_TUNING_STATE:-$ROOT/var/lib/ottla/tuning}
TUNER=${0##*/}

PROFILE=latency
CPUS=${OTTLA_TUNING_CPUS:-}
NICS=${OTTLA_TUNING_NIC:-}
DIR=${OTTLA_TUNING_DIR:-}
DRY_RUN=0
STRICT=0
# Whether what needs a reboot is meant, too.
BOOT=1
SYSCTL=0

CPU=/sys/devices/system/cpu

die() {
    printf '%s: %s\n' "$TUNER" "$1" >&2
    exit "${2:-1}"
}

# The comment at the head of a script, without its first line.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"; }

# ---- Rows ------------------------------------------------------------------------------------

R_KIND=() R_TARGET=() R_WANTED=() R_MODE=() R_LABEL=() R_WITH=()

# row KIND TARGET WANTED LABEL [MODE] [WITH]
# MODE: exact; min, where more is fine, too; refusable, where the kernel may refuse for its reasons.
row() {
    R_KIND+=("$1") R_TARGET+=("$2") R_WANTED+=("$3") R_LABEL+=("$4") R_MODE+=("${5:-exact}") R_WITH+=("${6:-}")
}

want() { row file "$1" "$2" "${3:-$(label_of "$1")}"; }
want_min() { row file "$1" "$2" "${3:-$(label_of "$1")}" min; }
# Writing the first changes the second as well.
want_with() { row file "$1" "$3" "$(label_of "$1")" exact "$2"; }
want_choice() { row choice "$1" "$2" "${3:-$(label_of "$1")}"; }
# Not possible here, for all or some of what the tuner is about.
absent() { row absent "" "" "$1"; }
# Nothing to do, for a reason that no row tells.
fine() { row fine "" "" "$1"; }
# The profile has no opinion.
left() { row left "" "" "$1"; }

# A sysctl by its name, others by their path.
label_of() {
    case $1 in
        /proc/sys/*) local name=${1#/proc/sys/} && printf '%s' "${name//\//.}" ;;
        *) printf '%s' "$1" ;;
    esac
}

# Names below the root that match, in FOUND.
each() {
    local path
    FOUND=()
    # The pattern is to be expanded, and a root may have spaces in it.
    local IFS=
    # shellcheck disable=SC2231
    for path in $ROOT$1; do
        [ -e "$path" ] && FOUND+=("${path#"$ROOT"}")
    done
    [ ${#FOUND[@]} -gt 0 ]
}

exists() { [ -e "$ROOT$1" ]; }

# The first line of a file in VALUE; empty where there is none.
line_of() {
    VALUE=
    [ -e "$ROOT$1" ] || return 1
    { IFS= read -r VALUE <"$ROOT$1" || [ -n "$VALUE" ]; } 2>/dev/null
}

has_word() {
    case " $1 " in *" $2 "*) return 0 ;; *) return 1 ;; esac
}

has_tool() {
    if [ -n "$ROOT" ]; then [ -x "$ROOT/bin/$1" ]; else command -v "$1" >/dev/null; fi
}

# A command of the machine. Its complaint is in WHY.
tool() {
    local name=$1 said
    shift
    has_tool "$name" || { WHY="the command $name is not here" && return 1; }
    if [ -n "$ROOT" ]; then
        said=$("$ROOT/bin/$name" "$@" 2>&1)
    else
        said=$(command "$name" "$@" 2>&1)
    fi && return 0
    WHY=${said##*$'\n'}
    WHY=${WHY:-$name failed}
    return 1
}

# ---- CPUs ------------------------------------------------------------------------------------

# 0-3,8 in LIST; fails for what is no such list.
expand_list() {
    local part first last
    LIST=()
    for part in ${1//,/ }; do
        [[ $part =~ ^([0-9]{1,5})(-([0-9]{1,5}))?$ ]] || return 1
        first=$((10#${BASH_REMATCH[1]})) last=$((10#${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}))
        [ "$first" -le "$last" ] || return 1
        for ((; first <= last; first++)); do LIST+=("$first"); done
    done
}

# Ascending CPUs as 0-3,8 in VALUE.
show_list() {
    local cpu start='' end=''
    VALUE=
    for cpu in "$@" ''; do
        if [ -n "$end" ] && [ "$cpu" = $((end + 1)) ]; then
            end=$cpu
            continue
        fi
        [ -n "$start" ] && VALUE+=${VALUE:+,}$start && [ "$end" != "$start" ] && VALUE+=-$end
        start=$cpu end=$cpu
    done
}

# CPUs as the kernel's masks in VALUE: words of 32 bits, the highest first.
mask_of() {
    local cpu words=() word highest=0
    for cpu in "$@"; do
        word=$((cpu / 32))
        words[word]=$((${words[word]:-0} | 1 << cpu % 32))
        [ "$word" -gt "$highest" ] && highest=$word
    done
    printf -v VALUE %x "${words[highest]:-0}"
    for ((word = highest - 1; word >= 0; word--)); do
        printf -v VALUE '%s,%08x' "$VALUE" "${words[word]:-0}"
    done
}

# Which CPUs are the event loops' (DATA), and which are everything else's (HOUSE), by --cpus, by what
# the kernel isolates already, or all but the first physical core. HOUSE is empty where there are too
# few; then WHY says so.
plan_cpus() {
    local online=() cpu chosen
    DATA=() HOUSE=()
    line_of $CPU/online && expand_list "$VALUE" || LIST=(0)
    online=("${LIST[@]}")
    line_of $CPU/isolated
    chosen=${CPUS:-${VALUE//[^0-9,-]/}}
    if [ -n "$chosen" ]; then
        expand_list "$chosen" || die "--cpus: $chosen is no list of CPUs such as 1-3,8" 2
        for cpu in "${online[@]}"; do
            if has_word "${LIST[*]}" "$cpu"; then DATA+=("$cpu"); else HOUSE+=("$cpu"); fi
        done
        [ ${#DATA[@]} -gt 0 ] || die "--cpus: none of $chosen is online" 2
        [ ${#HOUSE[@]} -gt 0 ] || WHY="--cpus leaves no CPU for the kernel's own work"
    elif [ ${#online[@]} -lt 4 ]; then
        DATA=("${online[@]}")
        WHY="${#online[@]} CPUs online, which is too few to keep one free for the kernel's own work (4, or --cpus)"
    else
        line_of "$CPU/cpu${online[0]}/topology/thread_siblings_list" && expand_list "$VALUE" || LIST=("${online[0]}")
        for cpu in "${online[@]}"; do
            if has_word "${LIST[*]}" "$cpu"; then HOUSE+=("$cpu"); else DATA+=("$cpu"); fi
        done
    fi
}

# ---- Devices ---------------------------------------------------------------------------------

# Network devices in NIC: --nic, or those with hardware behind them.
plan_nics() {
    local path
    NIC=()
    if [ -n "$NICS" ]; then
        IFS=, read -ra NIC <<<"$NICS"
        for path in "${NIC[@]}"; do
            exists "/sys/class/net/$path" || die "--nic: there is no network device $path" 2
        done
        return
    fi
    each "/sys/class/net/*/device" || return
    for path in "${FOUND[@]}"; do
        path=${path%/device}
        NIC+=("${path##*/}")
    done
}

# What is mounted where --dir is: MOUNT, MOUNT_KIND, MOUNT_OPTIONS and MOUNT_DEVICE (major:minor).
# The innermost mount counts; of equals the last hides the others.
plan_mount() {
    local device at prefix options rest dir words longest=-1
    MOUNT='' MOUNT_KIND='' MOUNT_OPTIONS='' MOUNT_DEVICE='' MOUNT_SOURCE=
    [ -n "$DIR" ] || for dir in /var/lib/ottla "$PWD"; do [ -d "$ROOT$dir" ] && DIR=$dir && break; done
    DIR=${DIR:-/}
    dir=$DIR
    [ -n "$ROOT" ] || dir=$(realpath -m -- "$DIR")
    exists /proc/self/mountinfo || return 1
    while read -r _ _ device _ at options rest; do
        # A space in a path is written as \040.
        at=${at//\\040/ }
        prefix=${at%/}/
        [[ ${dir%/}/ == "$prefix"* && ${#at} -ge $longest ]] || continue
        longest=${#at} MOUNT=$at MOUNT_OPTIONS=$options MOUNT_DEVICE=$device
        read -ra words <<<"${rest#*- }"
        MOUNT_KIND=${words[0]:-} MOUNT_SOURCE=${words[1]:-}
        # Some options are the file system's, not the mount's.
        MOUNT_OPTIONS+=,${words[2]:-}
    done <"$ROOT/proc/self/mountinfo"
    [ -n "$MOUNT" ]
}

# The disks below --dir as directories in /sys/block, in DISKS: the one that the mount is on first, and
# for a volume of several those that it is made of.
plan_disks() {
    local at part number
    DISKS=()
    if ! plan_mount; then
        # As in a chroot, whose own mount isn't told; the device's number is.
        WHY="no mount is known for $DIR"
        [ -z "$ROOT" ] && number=$(stat -c %d -- "$DIR" 2>/dev/null) || return 1
        MOUNT_DEVICE=$((number >> 8 & 0xfff)):$((number & 0xff | number >> 12 & 0xfff00))
    fi
    for part in "/sys/dev/block/$MOUNT_DEVICE" "/sys/class/block/${MOUNT_SOURCE##*/}"; do
        [ ${#DISKS[@]} -gt 0 ] || add_disk "$ROOT$part"
    done
    WHY="$DIR is on ${MOUNT_KIND:-a file system}, which has no block device here"
    [ ${#DISKS[@]} -gt 0 ] || return 1
    each "${DISKS[0]}/slaves/*" && for part in "${FOUND[@]}"; do add_disk "$ROOT$part"; done
    return 0
}

# A partition's queue is its disk's.
add_disk() {
    local at
    [ -e "$1" ] || return 0
    at=$(realpath "$1")
    [ -d "$at/queue" ] || at=${at%/*}
    at=/sys/block/${at##*/}
    if exists "$at/queue" && ! has_word "${DISKS[*]-}" "$at"; then DISKS+=("$at"); fi
}

# ---- Kinds: read_KIND and write_KIND ---------------------------------------------------------

read_file() {
    exists "$1" || { WHY="it is not there" && return 1; }
    line_of "$1" || [ -r "$ROOT$1" ] || { WHY="it can't be read" && return 1; }
}

write_file() {
    local said
    said=$({ printf '%s\n' "$2" >"$ROOT$1"; } 2>&1) && return 0
    WHY=${said##*: }
    return 1
}

read_choice() {
    read_file "$1" || return
    [[ $VALUE =~ \[([^]]+)\] ]] && VALUE=${BASH_REMATCH[1]}
    return 0
}
write_choice() { write_file "$@"; }

read_mask() {
    read_file "$1" || return
    # A device with a single queue has the file and refuses to be asked.
    [ -n "$VALUE" ] || { WHY="it can't be read" && return 1; }
}
write_mask() { write_file "$@"; }

# As `absent`, or with its bytes in base64.
read_text() {
    VALUE=absent
    exists "$1" || return 0
    VALUE=base64:$(base64 -w0 "$ROOT$1") || { WHY="it can't be read" && return 1; }
}

write_text() {
    local said
    if [ "$2" = absent ]; then
        said=$(rm -f "$ROOT$1" 2>&1) && return 0
    else
        said=$({ base64 -d <<<"${2#base64:}" >"$ROOT$1.new" && mv "$ROOT$1.new" "$ROOT$1"; } 2>&1) && return 0
        rm -f "$ROOT$1.new"
    fi
    WHY=${said##*: }
    return 1
}

read_grub() { read_text "$1"; }
write_grub() { write_text "$@" && tool update-grub; }

# Options of a mount, as mountinfo tells them now.
mount_options() {
    local DIR=$1
    if plan_mount && [ "$MOUNT" = "$1" ]; then return 0; fi
    WHY="nothing is mounted at $1"
    return 1
}
read_atime() {
    mount_options "$1" || return
    for VALUE in noatime relatime; do has_word "${MOUNT_OPTIONS//,/ }" $VALUE && return; done
    VALUE=strictatime
}
# Of options that exclude each other mount keeps both, and the kernel then takes noatime.
write_atime() {
    case $2 in
        noatime) tool mount -o remount,noatime "$1" ;;
        relatime) tool mount -o remount,atime,relatime "$1" ;;
        *) tool mount -o remount,atime,norelatime,strictatime "$1" ;;
    esac
}

read_discard() {
    mount_options "$1" || return
    VALUE=nodiscard
    has_word "${MOUNT_OPTIONS//,/ }" discard && VALUE=discard
    return 0
}
write_discard() { tool mount -o "remount,$2" "$1"; }

# PID/TID/NAME: a number alone could be another thread's by now.
read_task() {
    local name rest process thread expected at
    IFS=/ read -r process thread expected <<<"$1"
    at=/proc/$process/task/$thread
    WHY="thread $thread has ended"
    line_of "$at/comm" && [ "$VALUE" = "$expected" ] && [ -e "$ROOT$at/status" ] || return 1
    VALUE=
    while IFS=$'\t' read -r name rest; do
        [ "$name" = Cpus_allowed_list: ] && VALUE=$rest
    done <"$ROOT$at/status" 2>/dev/null
    [ -n "$VALUE" ]
}
write_task() {
    local thread=${1#*/}
    tool taskset -p -c "$2" "${thread%%/*}"
}

# A value without what doesn't matter, in VALUE.
canon() {
    local words
    case $1 in
        mask)
            VALUE=${2//,/}
            VALUE=${VALUE,,}
            while [[ $VALUE == 0?* ]]; do VALUE=${VALUE#0}; done
            ;;
        *)
            read -ra words <<<"$2"
            VALUE="${words[*]-}"
            ;;
    esac
}

# same KIND NOW WANTED [MODE]
same() {
    local now
    canon "$1" "$2"
    now=$VALUE
    canon "$1" "$3"
    [ "$now" = "$VALUE" ] && return 0
    [ "${4:-}" = min ] && [[ $now =~ ^[0-9]{1,18}$ ]] && [ "$now" -ge "$VALUE" ]
}

# A value for a person.
shown() {
    case $1:$2 in
        text:absent | grub:absent) printf none ;;
        text:* | grub:*) base64 -d <<<"${2#base64:}" | grep -v '^#' | tr -s '\n' ';' | sed 's/;*$//; s/;/; /g' ;;
        *:) printf "''" ;;
        *) printf '%s' "${2//$'\t'/ }" ;;
    esac
}

# ---- What was there --------------------------------------------------------------------------

declare -A RECORDED=()
ORDER=()

# A last line that isn't whole was written before nothing: the change comes after it.
load_state() {
    local kind target value
    RECORDED=() ORDER=() STALE=0
    line_of /proc/sys/kernel/random/boot_id
    BOOT_ID=$VALUE
    [ -f "$STATE/$TUNER" ] || return 0
    while IFS=$'\t' read -r kind target value; do
        case $kind:$STALE in
            boot:*)
                [ "$target" = "$BOOT_ID" ] || STALE=1
                continue
                ;;
            text:1 | grub:1) ;;
            *:1) continue ;;
        esac
        RECORDED["$kind"$'\t'"$target"]=$value
        ORDER+=("$kind"$'\t'"$target")
    done <"$STATE/$TUNER"
}

# record KIND TARGET VALUE: only the first time.
record() {
    local key=$1$'\t'$2 lines=
    [ -n "${RECORDED[$key]+x}" ] && return 0
    [ -e "$STATE/$TUNER" ] || lines=boot$'\t'$BOOT_ID$'\t'$'\n'
    if ! { printf '%s%s\t%s\n' "$lines" "$key" "$3" >>"$STATE/$TUNER"; } 2>/dev/null; then
        WHY="what is there can't be recorded in $STATE"
        return 1
    fi
    RECORDED[$key]=$3
    ORDER+=("$key")
}

# Keeps only the given keys.
keep_recorded() {
    local key
    if [ $# -eq 0 ]; then
        rm -f "$STATE/$TUNER"
    else
        {
            printf 'boot\t%s\t\n' "$BOOT_ID"
            for key in "$@"; do printf '%s\t%s\n' "$key" "${RECORDED[$key]}"; done
        } >"$STATE/.$TUNER.new" && mv "$STATE/.$TUNER.new" "$STATE/$TUNER"
    fi
    load_state
}

forget() {
    local key kept=()
    for key in "${ORDER[@]}"; do [ "$key" = "$1" ] || kept+=("$key"); done
    keep_recorded "${kept[@]}"
}

# One tuner at a time, and only for root.
begin_change() {
    [ "$DRY_RUN" -eq 1 ] && return
    [ -n "$ROOT" ] || [ "$(id -u)" -eq 0 ] || die "only root can change these settings: sudo $0 …"
    mkdir -p "$STATE" || die "the state directory $STATE can't be made"
    exec {LOCK}>"$STATE/.lock" || die "$STATE/.lock can't be opened"
    command -v flock >/dev/null && flock "$LOCK"
    return 0
}

open_state() {
    begin_change
    load_state
    [ "$STALE:$DRY_RUN" != 1:0 ] || keep_recorded "${ORDER[@]}"
}

# ---- Telling ---------------------------------------------------------------------------------

declare -A TOLD=()
TOLD_ORDER=()

# Lines that differ only in the CPU, queue or interrupt are one, with their number.
tell() {
    local key=$1$'\t'$2
    [ -n "${TOLD[$key]+x}" ] || TOLD_ORDER+=("$key")
    TOLD[$key]=$((${TOLD[$key]:-0} + 1))
}

flush_told() {
    local key count
    for key in "${TOLD_ORDER[@]}"; do
        count=${TOLD[$key]}
        [ "$count" -gt 1 ] && count=" (×$count)" || count=
        printf '%-18s  %-15s  %s%s\n' "${key%%$'\t'*}" "$TUNER" "${key#*$'\t'}" "$count"
    done
    TOLD=() TOLD_ORDER=()
}

# ---- Actions ---------------------------------------------------------------------------------

# Reads row $1: its value in NOW. Fails, and tells, where there is nothing to do.
row_differs() {
    local kind=${R_KIND[$1]} label=${R_LABEL[$1]}
    case $kind in
        absent) tell "not available here" "$label" && return 1 ;;
        left) tell "left as it is" "$label" && return 1 ;;
        fine) tell ok "$label" && return 1 ;;
    esac
    if ! "read_$kind" "${R_TARGET[$1]}"; then
        tell "not available here" "$label: $WHY"
        return 1
    fi
    NOW=$VALUE
    if same "$kind" "$NOW" "${R_WANTED[$1]}" "${R_MODE[$1]}"; then
        tell ok "$label: $(shown "$kind" "$NOW")"
        return 1
    fi
}

tell_change() {
    tell "$1" "${R_LABEL[$2]}: $(shown "${R_KIND[$2]}" "$NOW") → $(shown "${R_KIND[$2]}" "${R_WANTED[$2]}")${3:+: $3}"
}

check() {
    local i differing=0
    if [ "$SYSCTL" -eq 1 ]; then
        for i in "${!R_KIND[@]}"; do
            case ${R_TARGET[$i]} in /proc/sys/*) exists "${R_TARGET[$i]}" && printf '%s = %s\n' "${R_LABEL[$i]}" "${R_WANTED[$i]}" ;; esac
        done
        return 0
    fi
    for i in "${!R_KIND[@]}"; do
        row_differs "$i" || continue
        tell_change "would change" "$i"
        differing=1
    done
    flush_told
    [ "$STRICT" -eq 0 ] || [ "$differing" -eq 0 ]
}

apply() {
    local i failed=0
    open_state
    restore_unwanted || failed=1
    for i in "${!R_KIND[@]}"; do
        row_differs "$i" || continue
        if [ "$failed" -eq 1 ]; then
            tell_change "not tried" "$i"
        elif [ "$DRY_RUN" -eq 1 ]; then
            tell_change "would change" "$i"
        elif apply_row "$i"; then
            tell_change changed "$i"
        elif [ "${R_MODE[$i]}" = refusable ]; then
            tell "not available here" "${R_LABEL[$i]}: the kernel refuses ($WHY)"
        else
            tell_change FAILED "$i" "$WHY"
            failed=1
        fi
    done
    flush_told
    [ "$failed" -eq 0 ] && return 0
    printf '%s: what is told as changed is recorded, and restored by: %s revert\n' "$TUNER" "$0" >&2
    return 1
}

# Records, writes, reads back. Nothing stays recorded for what didn't change after all.
apply_row() {
    local kind=${R_KIND[$1]} target=${R_TARGET[$1]} with=${R_WITH[$1]} why=
    if [ -n "$with" ] && read_file "$with"; then record file "$with" "$VALUE" || return 1; fi
    record "$kind" "$target" "$NOW" || return 1
    "write_$kind" "$target" "${R_WANTED[$1]}" || why=$WHY
    if "read_$kind" "$target"; then
        local after=$VALUE
        [ -z "$why" ] && same "$kind" "$after" "${R_WANTED[$1]}" "${R_MODE[$1]}" && return 0
        same "$kind" "$after" "${RECORDED["$kind"$'\t'"$target"]}" && forget "$kind"$'\t'"$target"
        why=${why:-it is $(shown "$kind" "$after") after that}
    fi
    WHY=${why:-$WHY}
    return 1
}

# Whether what isn't there any more stays recorded.
KEEP_GONE=0

# Of what an earlier `apply` recorded, that which this profile doesn't ask for.
restore_unwanted() {
    local i key unwanted=()
    declare -A wanted=()
    for i in "${!R_KIND[@]}"; do
        wanted["${R_KIND[$i]}"$'\t'"${R_TARGET[$i]}"]=1
        wanted["file"$'\t'"${R_WITH[$i]}"]=1
    done
    for key in "${ORDER[@]}"; do [ -n "${wanted[$key]+x}" ] || unwanted+=("$key"); done
    # A CPU that is off, or a device, may come back as it was changed.
    KEEP_GONE=1
    restore "${unwanted[@]}"
}

# Writes what was recorded under the keys until everything is as it was: one setting can stand in
# another's way, or change it, whatever the order.
restore() {
    local keys=("$@") i key kind target differing=() kept=()
    declare -A from=() why=() gone=() failed=() mine=()
    [ $# -eq 0 ] && return 0
    for _ in 1 2 3 4; do
        differing=()
        for ((i = ${#keys[@]} - 1; i >= 0; i--)); do
            key=${keys[i]} kind=${keys[i]%%$'\t'*} target=${keys[i]#*$'\t'}
            if ! "read_$kind" "$target"; then
                gone[$key]=1 why[$key]=$WHY
                continue
            fi
            [ -n "${from[$key]+x}" ] || from[$key]=$VALUE
            same "$kind" "$VALUE" "${RECORDED[$key]}" && continue
            differing+=("$key")
            [ "$DRY_RUN" -eq 1 ] && continue
            WHY="it doesn't stay"
            "write_$kind" "$target" "${RECORDED[$key]}" || true
            why[$key]=$WHY
        done
        if [ ${#differing[@]} -eq 0 ] || [ "$DRY_RUN" -eq 1 ]; then break; fi
    done
    [ "$DRY_RUN" -eq 1 ] || for key in "${differing[@]}"; do failed[$key]=1; done
    for key in "${keys[@]}"; do
        mine[$key]=1
        kind=${key%%$'\t'*} target=$(label_of "${key#*$'\t'}")
        # Those that differ only in a number are told as one.
        target=${target/cpu\/cpu+([0-9])\//cpu/cpu*/}
        target=${target/queues\/rx-+([0-9])/queues/rx-*}
        target=${target/queues\/tx-+([0-9])/queues/tx-*}
        target=${target/proc\/irq\/+([0-9])/proc/irq/*}
        if [ -n "${gone[$key]+x}" ]; then
            tell gone "$target: ${why[$key]}"
        elif [ -n "${failed[$key]+x}" ]; then
            tell FAILED "$target: $(shown "$kind" "${from[$key]}") → $(shown "$kind" "${RECORDED[$key]}"): ${why[$key]}"
        elif same "$kind" "${from[$key]}" "${RECORDED[$key]}"; then
            tell ok "$target: $(shown "$kind" "${from[$key]}")"
        else
            [ "$DRY_RUN" -eq 1 ] && i="would restore" || i=restored
            tell "$i" "$target: $(shown "$kind" "${from[$key]}") → $(shown "$kind" "${RECORDED[$key]}")"
        fi
    done
    [ "$DRY_RUN" -eq 1 ] && return 0
    for key in "${ORDER[@]}"; do
        if [ -z "${mine[$key]+x}" ] || [ -n "${failed[$key]+x}" ]; then
            kept+=("$key")
        elif [ -n "${gone[$key]+x}" ] && [ "$KEEP_GONE" -eq 1 ] && [[ $key != task* ]]; then
            kept+=("$key")
        fi
    done
    keep_recorded "${kept[@]}"
    [ ${#failed[@]} -eq 0 ]
}

has_key() {
    local key=$1 other
    shift
    for other in "$@"; do [ "$other" = "$key" ] && return 0; done
    return 1
}

revert() {
    local status=0
    open_state
    [ ${#ORDER[@]} -eq 0 ] && tell ok "nothing was changed"
    restore "${ORDER[@]}" || status=1
    flush_told
    [ "$status" -eq 0 ] || printf '%s: what is told as FAILED stays recorded in %s\n' "$TUNER" "$STATE/$TUNER" >&2
    return "$status"
}

# ---- Command lines ---------------------------------------------------------------------------

# Options that all scripts have; others are left in REST.
options() {
    REST=()
    PASSED=()
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage && exit 0 ;;
            --dry-run) DRY_RUN=1 PASSED+=("$1") ;;
            --strict) STRICT=1 PASSED+=("$1") ;;
            --sysctl) SYSCTL=1 PASSED+=("$1") ;;
            --profile | --cpus | --nic | --dir)
                [ $# -gt 1 ] || die "$1 needs a value" 2
                case $1 in
                    --profile) PROFILE=$2 ;;
                    --cpus) CPUS=$2 PASSED+=("$1" "$2") ;;
                    --nic) NICS=$2 PASSED+=("$1" "$2") ;;
                    --dir) DIR=$2 PASSED+=("$1" "$2") ;;
                esac
                shift
                ;;
            *) REST+=("$1") ;;
        esac
        shift
    done
}

known_profile() {
    case $PROFILE in latency | throughput) ;; *) die "there is no profile $PROFILE: latency or throughput" 2 ;; esac
}

# The end of each tuner.
tuner() {
    options "$@"
    known_profile
    [ ${#REST[@]} -eq 1 ] || die "what to do? check, apply or revert; --help tells more" 2
    case ${REST[0]} in
        check | apply)
            settings || true
            "${REST[0]}"
            ;;
        revert) revert ;;
        *) die "check, apply or revert, not ${REST[0]}; --help tells more" 2 ;;
    esac
}

# Tuners in their order, in TUNERS; with a profile those that it has.
tuners_of() {
    local name latency throughput rest
    TUNERS=()
    while read -r name latency throughput rest; do
        case $name in '' | '#'*) continue ;; esac
        case ${1:-} in
            latency) rest=$latency ;;
            throughput) rest=$throughput ;;
            *) rest=yes ;;
        esac
        [ "$rest" = no ] || [ "$rest:$BOOT" = boot:0 ] || TUNERS+=("$name")
    done <"$HERE/profiles"
}

# The end of tuning/check, apply and revert.
every_tuner() {
    local action=$1 only='' skip='' i=0 name status=0 chosen=() finished=()
    shift
    options "$@"
    BOOT=0
    while [ $i -lt ${#REST[@]} ]; do
        case ${REST[i]}:$action in
            --boot:apply | --boot:revert) BOOT=1 ;;
            --only:* | --skip:*)
                [ $((i + 1)) -lt ${#REST[@]} ] || die "${REST[i]} needs tuners, as smt,swap" 2
                if [ "${REST[i]}" = --only ]; then only=${REST[i + 1]}; else skip=${REST[i + 1]}; fi
                i=$((i + 1))
                ;;
            -*) die "unknown option ${REST[i]}; --help tells them" 2 ;;
            *:revert) die "revert takes no profile: it restores what was there" 2 ;;
            *) PROFILE=${REST[i]} ;;
        esac
        i=$((i + 1))
    done
    known_profile
    # A mistake is told once, not by each tuner.
    if [ "$action" != revert ]; then
        [ -z "$CPUS" ] || plan_cpus
        [ -z "$NICS" ] || plan_nics
    fi
    [ "$action" = apply ] || BOOT=1
    # What was applied and isn't in this profile is put back first.
    tuners_of
    local all=("${TUNERS[@]}")
    for name in ${only//,/ } ${skip//,/ }; do
        has_key "$name" "${all[@]}" || die "there is no tuner $name: ${all[*]}" 2
    done
    case $action in
        revert)
            # CPUs that were switched off come back first, so that their settings can be restored.
            for name in "${all[@]:1}"; do chosen=("$name" "${chosen[@]}"); done
            chosen=("${all[0]}" "${chosen[@]}")
            ;;
        *) tuners_of "$PROFILE" && chosen=("${TUNERS[@]}") ;;
    esac
    if [ -n "$only" ]; then
        # A tuner that is named is meant, a reboot or not.
        local named=()
        for name in "${chosen[@]}" "${all[@]}"; do
            if has_word "${only//,/ }" "$name" && ! has_key "$name" "${named[@]}"; then named+=("$name"); fi
        done
        chosen=("${named[@]}")
    fi
    if [ "$action" != check ] && [ "$DRY_RUN" -eq 0 ] && [ -z "$ROOT" ] && [ "$(id -u)" -ne 0 ]; then
        die "only root can change these settings: sudo $0 …"
    fi
    if [ "$action" = apply ] && [ -z "$only" ]; then
        for name in "${all[@]}"; do
            if has_key "$name" "${chosen[@]}" || [ ! -e "$STATE/$name" ]; then continue; fi
            # The next boot is no profile's affair, unless it is said so.
            if [ "$name" = isolation ] && [ "$BOOT" -eq 0 ]; then continue; fi
            "$HERE/$name" revert "${PASSED[@]}" || status=1
        done
    fi
    for name in "${chosen[@]}"; do
        has_word "${skip//,/ }" "$name" && continue
        if [ "$action" = apply ] && [ "$status" -ne 0 ]; then
            printf '%-18s  %-15s\n' "not tried" "$name"
            continue
        fi
        [ "$action" = revert ] && [ ! -e "$STATE/$name" ] && continue
        "$HERE/$name" "$action" --profile "$PROFILE" "${PASSED[@]}" || status=1
        finished+=("$name")
    done
    if [ "$action" = revert ] && [ ${#finished[@]} -eq 0 ]; then
        echo "nothing was changed: there is nothing in $STATE"
    fi
    if [ "$action" = apply ] && [ "$status" -ne 0 ]; then
        printf '%s: stopped. %s/revert restores all that was changed; --skip leaves a tuner out\n' "$TUNER" "$HERE" >&2
    fi
    return "$status"
}
