#!/bin/sh
# Fetches nccl.h and the headers of the CUDA runtime that it includes into DIR, from the packages that
# NVIDIA publishes on PyPI. Of NCCL's package, 300 MB, it reads the first 64 KiB, where the header is.
#
#   scripts/fetch_nccl_headers.sh DIR
#
# Needs curl, sha256sum or shasum, and perl. Does nothing where DIR has them.
set -eu

fail() {
    echo "fetch_nccl_headers: $*" >&2
    exit 1
}

[ $# -eq 1 ] || fail "usage: fetch_nccl_headers.sh DIR"
dir=$1
host=https://files.pythonhosted.org/packages

sum_of() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    else
        shasum -a 256 "$1"
    fi | cut -d ' ' -f 1
}

# check FILE SUM
check() {
    [ "$(sum_of "$1")" = "$2" ] || fail "$1 is not what was expected: sha256 $(sum_of "$1")"
}

# get URL FILE [OPTION OF CURL...]
get() {
    url=$1 file=$2
    shift 2
    curl -fsSL --retry 3 "$@" -o "$file" "$host/$url" || fail "$host/$url cannot be fetched"
}

# unpack ARCHIVE PATTERN: writes the members that fit into $work. Stops quietly where the archive
# ends early, as the first part of one does; what was cut off is not written.
unpack() {
    perl -MIO::Uncompress::Unzip=:all -MFile::Path=make_path -MFile::Basename=dirname -e '
        my ($archive, $pattern, $to) = @ARGV;
        my $zip = IO::Uncompress::Unzip->new($archive) or die "$archive: $UnzipError\n";
        for (my $status = 1; $status > 0; $status = $zip->nextStream()) {
            my $name = $zip->getHeaderInfo()->{Name};
            my ($text, $read) = ("");
            while (($read = $zip->read(my $part)) > 0) { $text .= $part }
            last if $read < 0;
            next unless $name =~ /$pattern/ && $name !~ m{(^|/)\.\.(/|$)|^/};
            make_path(dirname("$to/$name"));
            open(my $file, ">:raw", "$to/$name") or die "$to/$name: $!\n";
            print $file $text;
            close($file) or die "$to/$name: $!\n";
        }' "$1" "$2" "$work" || fail "$1 cannot be unpacked"
}

if [ -f "$dir/nccl.h" ]; then
    exit 0
fi
mkdir -p "$dir"
work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

get 2e/24/d1558f3b68b1d26e706813b1d10aa1d785e4698c425af8db8edc3dced472/nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl \
    "$work/runtime.whl"
check "$work/runtime.whl" 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
get 05/69/a1ec4d9f0747d85964206feb47bf359f48a2d6af74c0add8abba6efe3dda/nvidia_cuda_crt-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl \
    "$work/crt.whl"
check "$work/crt.whl" 2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
get ab/fb/0384bb2129bed6b1b39f8e44471c615ab5ab29b7e55817538a1d390d8f84/nvidia_cuda_cccl-13.0.85-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl \
    "$work/cccl.whl"
check "$work/cccl.whl" e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
get c4/cb/2cf5b8e6a669c90ac6410c3a9d86881308492765b6744de5d0ce75089999/nvidia_nccl_cu12-2.27.7-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl \
    "$work/nccl.part" --range 0-65535
for part in runtime.whl crt.whl nccl.part; do
    unpack "$work/$part" '/include/.*\.(h|hpp)$'
done
unpack "$work/cccl.whl" '^nvidia/cu13/include/nv/'
[ -f "$work/nvidia/nccl/include/nccl.h" ] || fail "NCCL's package has no nccl.h in its beginning"
check "$work/nvidia/nccl/include/nccl.h" \
    32f93de5a3f816ff34374defec376374e111784469fd093c6faf16b33aac4743
# nccl.h last: where it is, all are.
rm -rf "$dir/crt" "$dir/nv" "$dir/cooperative_groups"
mv "$work/nvidia/cu13/include/"* "$dir/"
mv "$work/nvidia/nccl/include/nccl.h" "$dir/"
