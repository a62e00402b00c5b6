#!/bin/sh
# Prepare a fresh Debian or Ubuntu machine: `tools/setup.sh lab` for the demo, `tools/setup.sh test` for the tests. The others have an
# environment of their own, as `tools/setup.sh docs` has .venv-docs: benchmarks, docs for the site of the documentation, release for
# the check of a release, and 2.21 for the second supported ansible-core. Several are prepared side by side.
# As root it installs missing Debian packages; without root it says what it goes on without. Run again at will.
set -eu

: "${1:?usage: tools/setup.sh lab|test|benchmarks|docs|release|2.21 ...}"
here=$(cd "$(dirname "$0")/.." && pwd)
pins=$(cat "$here"/requirements/*.txt | cksum | cut -d' ' -f1)
packages=
for what; do
    case $what in
        lab) packages="$packages iproute2 openssh-server rsync" ;;
        test) packages="$packages iproute2 openssh-server rsync redis-server chromium default-jre-headless" ;;
        benchmarks) packages="$packages unzip" ;;
        docs | 2.21) ;;
        release) packages="$packages git gpg" ;;
        *) echo "setup: There is no $what. Take some of: lab test benchmarks docs release 2.21" >&2; exit 2 ;;
    esac
done

say() { printf 'setup: %s\n' "$*" >&2; }

missing_packages() {
    for package in $packages; do
        case $package in
            openssh-server) [ -x /usr/sbin/sshd ] ;;
            iproute2) command -v ip >/dev/null || [ -x /usr/sbin/ip ] ;;
            redis-server) command -v redis-server >/dev/null ;;
            # Ubuntu has it as a snap only; the test of the report page is skipped there and says so.
            chromium) command -v chromium >/dev/null || grep -qs '^ID=ubuntu' /etc/os-release ;;
            default-jre-headless) command -v java >/dev/null || [ -n "${JAVA_HOME:-}" ] ;;
            *) command -v "$package" >/dev/null ;;
        esac || printf '%s ' "$package"
    done
}

# Services of the packages are not wanted, only their programs: nothing is started, and ssh is not enabled by us.
install_packages() {
    say "installing Debian packages: $*"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    if [ -d /run/systemd/system ]; then
        for service in "$@"; do
            case $service in
                openssh-server) systemctl -q disable ssh.service ssh.socket 2>/dev/null || say "ssh was left enabled" ;;
                redis-server) systemctl -q disable redis-server.service || say "redis-server was left enabled" ;;
            esac
        done
    fi
}

# The distribution's first, whose build is the fastest; one that lacks its venv module only where there is no other.
find_python() {
    lacking=
    for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.11 python3.12 python3.13 "$HOME"/.pyenv/versions/3.1[123]*/bin/python3}; do
        "$candidate" -c "import sys; sys.exit(not ($1) <= sys.version_info[:2] <= (3, 13))" 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        lacking=${lacking:-$candidate}
    done
    [ -z "$lacking" ] || command -v "$lacking"
}

# Where the environment is, and whether it is as the requirements have it.
place_of() { case $1 in lab | test) echo "$here/.venv" ;; *) echo "$here/.venv-$1" ;; esac; }
is_there() { [ -e "$(place_of "$1")/.$1-$pins" ]; }

# The interpreter for an environment, with what makes environments; nothing where it can be done without.
python_for() {
    case $1 in
        2.21)
            python=$(PYTHON='' find_python '3, 12')
            [ -n "$python" ] || say "no Python 3.12 or 3.13 here, so ansible-core 2.21 is not tested on this machine"
            ;;
        *)
            python=$(find_python '3, 11')
            if [ -z "$python" ]; then
                say "no Python 3.11, 3.12 or 3.13 found (ansible-core 2.19 needs one). Install python3.11 or set PYTHON=/path/to/python${PYTHON:+; it is $PYTHON}."
                exit 1
            fi
            ;;
    esac
    if [ -n "$python" ] && ! "$python" -c 'import ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if [ "$(id -u)" -eq 0 ]; then
            install_packages "python$version-venv"
        else
            say "$python has no venv module. Ask for the package python$version-venv."
            [ "$1" = 2.21 ] || exit 1
            say "ansible-core 2.21 is not tested without it"
            python=
        fi
    fi
}

install() { "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "$@"; }

prepare() {
    what=$1 python=$2
    venv=$(place_of "$what")
    requirements=requirements/$what.txt
    [ -e "$here/$requirements" ] || requirements=requirements/core-$what.txt
    say "preparing ${venv##*/} with $requirements (once)"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # Two packages are most of it, and pip unpacks one after the other.
    if [ "$what" = test ]; then
        sed -n '/^\(ansible\|torch\)==/p' "$here/requirements/controller.txt" "$here/$requirements" | {
            while read -r package; do
                install --no-deps "$package" &
            done
            wait
        }
    fi
    install -r "$here/$requirements"
    # Python compiles what it loads when it first does. What every play loads is compiled here: who uses a checkout may not own it.
    case $what in
        lab | test | 2.21)
            for package in "$here/lab" "$here/plugins" "$venv"/lib/python3*/site-packages/ansible "$venv"/lib/python3*/site-packages/jinja2 \
                "$venv"/lib/python3*/site-packages/yaml "$venv"/lib/python3*/site-packages/numpy; do
                [ ! -d "$package" ] || "$venv/bin/python" -m compileall -q -j 0 "$package" || say "$package was not compiled"
            done
            ;;
    esac
    touch "$venv/.$what-$pins"
}

missing=$(missing_packages)
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # a list of package names
        install_packages $missing
    else
        say "not root, so these Debian packages stay missing: $missing"
        say "what needs them is skipped and says so; the lab goes on with its 'local' driver"
    fi
fi
children=
for what; do
    is_there "$what" || python_for "$what"
    if ! is_there "$what" && [ -n "$python" ]; then
        prepare "$what" "$python" &
        children="$children $!"
        # The longest has the processors first.
        case $what in lab | test) ;; *) renice -n 10 -p $! >/dev/null 2>&1 || : ;; esac
    fi
done
result=0
for child in $children; do
    wait "$child" || result=$?
done
exit $result
