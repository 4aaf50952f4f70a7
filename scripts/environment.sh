# To be sourced from the repository root: makes and activates .venv with this project and the named extras.
# An environment that is already active is used as it is, if it has the project's requirements.
extras="${1:-}"
python_of_system="${PYTHON:-python3}"
"$python_of_system" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "error: Python 3.10 or newer is needed, found $("$python_of_system" --version 2>&1); set PYTHON to a newer one" >&2
    exit 2
}
# The environment is complete when this file names the requirements it was made from.
stamp=".venv/installed-${extras//,/-}"
wanted="$(cat requirements.txt setup.py | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing into .venv (about 5 GB, a few minutes, once) ..."
    [ -x .venv/bin/python ] || "$python_of_system" -m venv .venv
    .venv/bin/python -m pip install --quiet --upgrade pip
    .venv/bin/python -m pip install --quiet -r requirements.txt -e ".[$extras]"
    echo "$wanted" >"$stamp"
fi
source .venv/bin/activate
