# Sourced by scripts/demo and scripts/test: everything a bare Debian machine with Python lacks.
# Usage: prepare EXTRAS [--group NAME]; leaves the interpreter in $PYTHON.

offscreen_packages="libegl1 libgl1 libglib2.0-0 libdbus-1-3 libfontconfig1 libxkbcommon0"
display_packages="xvfb xauth libgl1-mesa-dri libglx-mesa0 libx11-xcb1 libxkbcommon-x11-0 libxcb-cursor0
libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-shm0
libxcb-sync1 libxcb-xfixes0 libxcb-xkb1"

# Where it is set, every process that is started would compile PyTorch anew, which takes longer than most tests.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "== $*" >&2; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

missing_packages() {
  local package
  for package in "$@"; do
    # Newer Debian renames a library when its ABI changes (libglib2.0-0t64): either will do.
    # dpkg-query also fails where only one of the two names is unknown, so its exit status says nothing.
    { dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null || true; } | grep 'ok installed' >/dev/null ||
      echo "$package"
  done
}

apt_install() {
  local missing
  missing=$(missing_packages "$@" | tr '\n' ' ')
  [ -z "${missing// /}" ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    fail "These system packages are missing: $missing
Install them (sudo apt-get install $missing) and run this again."
  fi
  say "installing system packages: $missing"
  apt-get update -qq >&2
  # shellcheck disable=SC2086 # a list of names
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed and was not found: install it, or name it in PYTHON=."
}

prepare() {
  local extras=$1 base stamp wanted
  shift
  if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086 # lists of names
    apt_install $offscreen_packages $display_packages
  else
    say "this is no Debian system: Qt's libraries and Xvfb are taken to be installed"
  fi
  base=$(find_python)
  if [ ! -x .venv/bin/python ]; then
    say "making a virtual environment in .venv"
    if ! "$base" -c 'import ensurepip' 2>/dev/null; then
      apt_install "$("$base" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    "$base" -m venv .venv
  fi
  PYTHON=$PWD/.venv/bin/python
  # One mark for each set of extras: the demonstration after the tests finds all it needs.
  wanted=$(printf '%s' "$extras $*" | cat - pyproject.toml | sha256sum | cut -c 1-16)
  stamp=.venv/installed-$wanted
  if [ ! -e "$stamp" ]; then
    say "installing napari-her2 and what it needs (PyTorch is large: about 6 GB on disk)"
    "$PYTHON" -m uv --version >/dev/null 2>&1 || "$PYTHON" -m pip install -q --disable-pip-version-check uv
    "$PYTHON" -m uv pip install -q --python "$PYTHON" -e ".[$extras]" "$@"
    touch "$stamp"
  fi
}

on_screen() { # run a command on the display there is, or on a virtual one
  if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    "$@"
  else
    xvfb-run -a -s "-screen 0 1920x1080x24 +extension GLX +render -noreset" "$@"
  fi
}
