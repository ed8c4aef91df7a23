#!/bin/sh
# Fetches a stock ONNX Runtime for Linux into DIR/lib: the shared library, the link
# libonnxruntime.so, and the runtime's licence texts in DIR/share/licenses/onnxruntime.
#
#   scripts/fetch_runtime.sh [VERSION] DIR      VERSION: 1.32.0 (default), 1.24.4 or 1.19.2
#
# The library comes out of the runtime's Python wheel, checked against the SHA-256 below. Needs
# python3 with pip to download; installs nothing into that Python. Does nothing when DIR already
# holds the version intact. Files appear under their names only once they are whole.
set -eu

die() {
    echo "fetch_runtime: $*" >&2
    exit 1
}

case $# in
    1) version=1.32.0 dir=$1 ;;
    2) version=$1 dir=$2 ;;
    *) die "usage: $0 [VERSION] DIR" ;;
esac
[ -n "$dir" ] || die "usage: $0 [VERSION] DIR"

[ "$(uname -s)" = Linux ] || die "only Linux builds are pinned; install ONNX Runtime $version \
yourself and set MMOPT_ORT_LIB to its library"
machine=$(uname -m)
case $machine in
    arm64) machine=aarch64 ;;
    amd64) machine=x86_64 ;;
esac

# SHA-256 of the wheels for CPython 3.11.
case $version-$machine in
    1.32.0-x86_64) wheel=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
    1.24.4-x86_64) wheel=e54ad52e61d2d4618dcff8fa1480ac66b24ee2eab73331322db1049f11ccf330 ;;
    1.19.2-x86_64) wheel=a36511dc07c5c964b916697e42e366fa43c48cdb3d3503578d78cef30417cb84 ;;
    1.32.0-aarch64) wheel=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c ;;
    1.24.4-aarch64) wheel=046ff290045a387676941a02a8ae5c3ebec6b4f551ae228711968c4a69d8f6b7 ;;
    1.19.2-aarch64) wheel=c1dfe4f660a71b31caa81fc298a25f9612815215a47b286236e61d540350d7b6 ;;
    *) die "no pinned build of ONNX Runtime $version for $machine; install one yourself and set \
MMOPT_ORT_LIB to its library" ;;
esac

file=libonnxruntime.so.$version
stamp=$dir/lib/.$file.sha256

# Intact means: the library still has the checksum that was noted when it was unpacked.
intact() {
    [ -f "$dir/lib/$file" ] && [ -f "$stamp" ] &&
        [ "$(cat "$stamp")" = "$wheel $(sha256sum <"$dir/lib/$file")" ]
}

link() {
    [ "$(readlink "$dir/lib/libonnxruntime.so" 2>/dev/null)" = "$file" ] && return
    ln -s "$file" "$dir/lib/.link.$$"
    mv -f "$dir/lib/.link.$$" "$dir/lib/libonnxruntime.so"
}

if intact; then
    link
    exit 0
fi

python=${PYTHON:-python3}
"$python" -m pip --version >/dev/null 2>&1 ||
    die "needs $python with pip to download ONNX Runtime $version; or install it yourself and set \
MMOPT_ORT_LIB to its library"

mkdir -p "$dir/lib"
# Beside the target, so that the last step is a rename.
work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "fetching ONNX Runtime $version for $machine ..."
platforms=
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    platforms="$platforms --platform ${tag}_$machine"
done
# shellcheck disable=SC2086 # the platforms are separate words
"$python" -m pip download "onnxruntime==$version" --no-deps --only-binary :all: $platforms \
    --python-version 3.11 --implementation cp --abi cp311 --dest "$work" \
    --disable-pip-version-check --no-input --quiet >"$work/log" 2>&1 || {
    sed 's/^/  /' "$work/log" >&2
    die "the download failed; with no network, put ONNX Runtime $version there yourself and set \
MMOPT_ORT_LIB to its library"
}
set -- "$work"/onnxruntime-*.whl
[ -f "$1" ] || die "pip reported success but left no wheel"
got=$(sha256sum <"$1")
[ "${got%% *}" = "$wheel" ] || die "the wheel has SHA-256 ${got%% *}, expected $wheel; not used"

# The wheel names the library differently from version to version; each holds just one.
"$python" - "$1" "$work" "$file" <<'PYTHON'
import pathlib, re, shutil, sys, zipfile

wheel, work, library = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
wanted = {"onnxruntime/LICENSE": "LICENSE",
          "onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt"}
for name in wheel.namelist():
    if re.fullmatch(r"onnxruntime/capi/libonnxruntime\.so(\.[0-9.]+)?", name):
        wanted[name] = library
for name, target in wanted.items():
    with wheel.open(name) as source, open(work / target, "wb") as sink:
        shutil.copyfileobj(source, sink)
PYTHON
[ -f "$work/$file" ] || die "the wheel holds no library"
chmod 644 "$work/$file"

licenses=$dir/share/licenses/onnxruntime
mkdir -p "$licenses"
mv -f "$work/LICENSE" "$work/ThirdPartyNotices.txt" "$licenses/"
mv -f "$work/$file" "$dir/lib/$file"
echo "$wheel $(sha256sum <"$dir/lib/$file")" >"$work/stamp"
mv -f "$work/stamp" "$stamp"
link
echo "ONNX Runtime $version is in $dir/lib"
