# Brings what the tests need and the build doesn't: kcat, shellcheck, a JDK and Maven (apt), Python clients (a venv),
# Apache Kafka's jars (Maven). Sourced by scripts/test, and by scripts/compare-kafka for the jars. Everything
# lands in $STATE and is made once; a stamp holds the checksum of the file that it was made from.

# Debian's package for a command.
package_of() {
    case $1 in
        kcat) echo kcat ;;
        javac) echo default-jdk-headless ;;
        mvn) echo maven ;;
        python3) echo python3 ;;
        cc) echo build-essential ;;
        setpriv | prlimit) echo util-linux ;;
        *) echo "$1" ;;
    esac
}

# setup_packages COMMAND...
setup_packages() {
    local command packages=()
    for command in "$@"; do
        command -v "$command" >/dev/null || packages+=("$(package_of "$command")")
    done
    # Debian splits the venv module's pip out of python3.
    if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        packages+=(python3-venv)
    fi
    [ ${#packages[@]} -eq 0 ] && return 0
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "these packages are missing, and only root can install them: apt-get install ${packages[*]}"
        sudo=(sudo -n)
    fi
    command -v apt-get >/dev/null || fail "these Debian packages, or your system's like, are missing: ${packages[*]}"
    say "installing ${packages[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
}

# once NAME FILE COMMAND...: runs the command unless NAME was made from FILE as it stands.
once() {
    local stamp="$STATE/$1.stamp" sum
    sum=$(sha256sum <"$2")
    if [ -e "$STATE/$1" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then
        return 0
    fi
    rm -rf "${STATE:?}/$1" "$stamp"
    "${@:3}" || return
    printf '%s\n' "$sum" >"$stamp"
}

make_venv() {
    python3 -m venv "$STATE/venv" && "$STATE/venv/bin/pip" install -q --disable-pip-version-check -r tests/e2e/requirements.txt
}

# The plug-in's output directory is made whole under another name first: an interrupted copy must not pass for one.
make_jars() {
    local part="$STATE/kafka-jars.part"
    rm -rf "$part"
    mvn -B -q -f tests/java/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DoutputDirectory="$part" -DincludeScope=runtime && mv "$part" "$STATE/kafka-jars"
}

make_java_classes() {
    javac -nowarn -cp "$STATE/kafka-jars/*" -d "$STATE/java-classes" tests/java/ToolRunner.java
}

# Only what running Apache Kafka needs.
setup_kafka() {
    mkdir -p "$STATE"
    setup_packages javac mvn || return
    once kafka-jars tests/java/pom.xml make_jars || return
}

setup() {
    mkdir -p "$STATE"
    setup_packages cc python3 javac mvn kcat setpriv shellcheck || return
    once venv tests/e2e/requirements.txt make_venv || return
    once kafka-jars tests/java/pom.xml make_jars || return
    once java-classes tests/java/ToolRunner.java make_java_classes || return
}
