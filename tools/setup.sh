#!/bin/sh
# Prepare a fresh Debian or Ubuntu machine: `tools/setup.sh lab` for the demo, `tools/setup.sh test` for the tests,
# `tools/setup.sh benchmarks` for the benchmarks, `tools/setup.sh docs` for the site of the documentation and `tools/setup.sh release`
# for the check of a release, which have a .venv-benchmarks, a .venv-docs and a .venv-release of their own.
# As root it installs missing Debian packages; without root it says what it goes on without. Run again at will.
set -eu

what=${1:?usage: tools/setup.sh lab|test|benchmarks|docs|release}
here=$(cd "$(dirname "$0")/.." && pwd)
venv=$here/.venv
requirements=$here/requirements/$what.txt
packages="iproute2 openssh-server rsync"
without="the lab goes on with its 'local' driver; what needs the packages is skipped and says so"
case $what in
    lab) ;;
    benchmarks)
        venv=$here/.venv-benchmarks
        packages=unzip
        without="the benchmarks go on without them and say so"
        ;;
    docs)
        venv=$here/.venv-docs
        packages=
        ;;
    release)
        venv=$here/.venv-release
        packages="git gpg"
        without="what needs the packages could not be looked at, and the check says so"
        ;;
    *) packages="$packages redis-server chromium default-jre-headless" ;;
esac

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
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        lacking=${lacking:-$candidate}
    done
    if [ -z "$lacking" ]; then
        say "no Python 3.11, 3.12 or 3.13 found (ansible-core 2.19 needs one). Install python3.11 or set PYTHON=/path/to/python${PYTHON:+; it is $PYTHON}."
        return 1
    fi
    command -v "$lacking"
}

missing=$(missing_packages)
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # a list of package names
        install_packages $missing
    else
        say "not root, so these Debian packages stay missing: $missing"
        say "$without"
    fi
fi

python=$(find_python)
stamp=$venv/.$what-$(cat "$here"/requirements/*.txt | cksum | cut -d' ' -f1)
if [ ! -e "$stamp" ]; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        [ "$(id -u)" -eq 0 ] || { say "$python has no venv module. Ask for the package python$version-venv."; exit 1; }
        install_packages "python$version-venv"
    fi
    say "preparing ${venv##*/} with $requirements (once)"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # Python compiles what it loads when it first does. What every command loads is compiled here: who uses a checkout may not own it.
    "$venv/bin/python" -m compileall -q "$here/lab" "$here/plugins" || say "lab and plugins were not compiled"
    "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check -r "$requirements"
    for name in ansible jinja2 yaml numpy; do
        for package in "$venv"/lib/python3*/site-packages/"$name"; do
            [ ! -d "$package" ] || "$venv/bin/python" -m compileall -q "$package" || say "$package was not compiled"
        done
    done
    touch "$stamp"
fi
