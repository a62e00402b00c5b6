#!/bin/sh
# `ansible-test sanity` with the ansible-core of an environment on an installed collection: tools/sanity.sh VENV TREE [OPTION ...].
# What it fetches is kept in build/ansible-test.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/$1
tree=$2
shift 2
pip=$("$root/.venv/bin/python" -m pip config list)
HOME=$root/build/ansible-test
PATH=$venv/bin:$PATH
LC_ALL=C.UTF-8
export HOME PATH LC_ALL
mkdir -p "$HOME/.ansible/test/cache" "$HOME/.config/pip"
# A pip from this environment instead of one from the internet: it is there already, so each of a dozen environments has it at
# once. For another Python, which it may be too new for, that Python's own.
site=$("$venv/bin/python" -c 'import pip, os; print(os.path.dirname(os.path.dirname(pip.__file__)))')
for version in 24_2 25_2; do
    cat >"$HOME/.ansible/test/cache/get_pip_$version.py" <<EOF
import ensurepip, pathlib, shutil, sys, sysconfig

site = pathlib.Path("$site")
if site.parent.name == "python%d.%d" % sys.version_info[:2]:
    for path in site.glob("pip*"):
        shutil.copytree(path, pathlib.Path(sysconfig.get_path("purelib"), path.name), dirs_exist_ok=True)
else:
    ensurepip.bootstrap(default_pip=True)
EOF
done
umask 077
# It hands no variable on to pip, so what they say of the index is written down; the first of a name is the one in force.
echo "$pip" |
    awk -F "='" 'BEGIN { print "[global]" }
        { sub(/.*\./, "", $1); sub(/\x27$/, "", $2) } !seen[$1]++ { print $1 " = " $2 }' >"$HOME/.config/pip/pip.conf"
# It looks at what git knows.
[ -d "$tree/.git" ] || git -C "$tree" init -q
git -C "$tree" add -A
cd "$tree"
exec ansible-test sanity --local --color no "$@"
