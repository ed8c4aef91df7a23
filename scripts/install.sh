#!/bin/sh
# Installs the library, its headers, and the files by which pkg-config and CMake find it; or removes
# exactly those files again.
#
#   scripts/install.sh [--uninstall] LIBRARIES PREFIX [DESTDIR]
#
# LIBRARIES: the folder with the shared and the static library that were built: libmmopt.so on
# Linux, libmmopt.dylib on macOS, mmopt.dll with libmmopt.dll.a on Windows (MinGW), and libmmopt.a.
# PREFIX: where it will be used, an absolute path. DESTDIR: a folder that stands for / while
# packaging. LIBDIR names the folder of libraries below PREFIX (default: lib). SYSTEM, as `uname -s`
# says it, names the system of libraries that were built for another one.
set -eu

remove=no
if [ "${1:-}" = --uninstall ]; then
    remove=yes
    shift
fi
if [ $# -lt 2 ]; then
    echo "usage: scripts/install.sh [--uninstall] LIBRARIES PREFIX [DESTDIR]" >&2
    exit 2
fi
built=$1
prefix=$2
case $prefix in
    /* | [A-Za-z]:[/\\]*) ;;
    *)
        echo "install: PREFIX is '$prefix'; it must be an absolute path" >&2
        exit 2
        ;;
esac
lib=${LIBDIR:-lib}
lib=${lib#"$prefix"/}
case /$lib/ in
    //* | */../*)
        echo "install: LIBDIR is '$lib'; it must be a folder below PREFIX, such as lib/x86_64-linux-gnu" >&2
        exit 2
        ;;
esac
# From the folder of libraries back to PREFIX.
up=$(echo "$lib" | sed 's|[^/][^/]*|..|g')
root=${3:-}$prefix
source=$(dirname "$0")/..
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$source/Cargo.toml" | head -n 1)
major=${version%%.*}

# What is built; where the file that holds it is installed; names that lead to it, each to the one
# before. Then what programs link with, and what the static library needs.
case ${SYSTEM:-$(uname -s)} in
    Darwin)
        shared=libmmopt.dylib place=$lib/libmmopt.$version.dylib
        links="libmmopt.$major.dylib libmmopt.dylib"
        import='' cmake_shared=$lib/libmmopt.dylib static_needs="m"
        ;;
    MINGW* | MSYS* | CYGWIN* | Windows*)
        shared=mmopt.dll place=bin/mmopt.dll links=''
        import=libmmopt.dll.a cmake_shared=bin/mmopt.dll
        static_needs="ws2_32;userenv;ntdll;bcrypt"
        ;;
    *)
        shared=libmmopt.so place=$lib/libmmopt.so.$version
        links="libmmopt.so.$major libmmopt.so"
        import='' cmake_shared=$lib/libmmopt.so static_needs="pthread;dl;m"
        ;;
esac

files="$place $lib/libmmopt.a include/mmopt.h include/mmopt_mpi.h include/mmopt_nccl.h include/mmopt.hpp include/mmopt_torch.hpp $lib/pkgconfig/mmopt.pc
$lib/pkgconfig/mmopt-static.pc
$lib/cmake/mmopt/mmoptConfig.cmake $lib/cmake/mmopt/mmoptConfigVersion.cmake
share/licenses/mmopt/LICENSE"
for file in $links $import; do
    files="$files $lib/$file"
done
for header in "$source"/bindings/cpp/mmopt/*.hpp; do
    files="$files include/mmopt/${header##*/}"
done

if [ "$remove" = yes ]; then
    for file in $files; do
        rm -f "$root/$file"
    done
    rmdir "$root/include/mmopt" "$root/$lib/cmake/mmopt" "$root/share/licenses/mmopt" 2>/dev/null || true
    echo "removed libmmopt $version from $root"
    exit 0
fi
for file in $shared $import libmmopt.a; do
    if [ ! -f "$built/$file" ]; then
        echo "install: $built/$file is missing; build the library first" >&2
        exit 1
    fi
done

mkdir -p "$(dirname "$root/$place")" "$root/$lib/pkgconfig" "$root/$lib/cmake/mmopt" "$root/include/mmopt" \
    "$root/share/licenses/mmopt"
# Copied beside their places and renamed: a running program keeps the file that it has open.
put() {
    cp "$1" "$root/$2.new"
    chmod "$3" "$root/$2.new"
    mv -f "$root/$2.new" "$root/$2"
}
put "$built/$shared" "$place" 755
put "$built/libmmopt.a" "$lib/libmmopt.a" 644
[ -z "$import" ] || put "$built/$import" "$lib/$import" 644
to=${place##*/}
for link in $links; do
    ln -sf "$to" "$root/$lib/$link"
    to=$link
done
put "$source/include/mmopt.h" include/mmopt.h 644
put "$source/include/mmopt_mpi.h" include/mmopt_mpi.h 644
put "$source/include/mmopt_nccl.h" include/mmopt_nccl.h 644
put "$source/bindings/cpp/mmopt.hpp" include/mmopt.hpp 644
put "$source/bindings/cpp/mmopt_torch.hpp" include/mmopt_torch.hpp 644
for header in "$source"/bindings/cpp/mmopt/*.hpp; do
    put "$header" "include/mmopt/${header##*/}" 644
done
put "$source/LICENSE" share/licenses/mmopt/LICENSE 644

# Both files are found beside the libraries, wherever these are moved to.
describe() { # NAME LIBS CFLAGS
    cat > "$root/$lib/pkgconfig/$1.pc" <<END
prefix=\${pcfiledir}/../$up
libdir=\${prefix}/$lib
includedir=\${prefix}/include

Name: $1
Description: Joint training of several transformers on stock ONNX Runtime
Version: $version
Cflags: -I\${includedir}$3
Libs: $2
END
}
describe mmopt "-L\${libdir} -lmmopt" ""
# The archive by its name, as -lmmopt is the shared library where both are. What is linked with it
# exports none of its symbols.
hide=
[ "$shared" != libmmopt.so ] || hide=" -Wl,--exclude-libs,libmmopt.a"
describe mmopt-static "\${libdir}/libmmopt.a$hide -l$(echo "$static_needs" | sed 's/;/ -l/g')" \
    " -DMMOPT_STATIC"

cmake_import=
[ -z "$import" ] || cmake_import="
        IMPORTED_IMPLIB \"\${_mmopt}/$lib/$import\""
# A shared library with a static copy inside exports its own functions only.
cmake_hide=
[ -z "$hide" ] || cmake_hide="
    set_property(TARGET mmopt::static PROPERTY
        INTERFACE_LINK_OPTIONS \"-Wl,--exclude-libs,libmmopt.a\")"
cat > "$root/$lib/cmake/mmopt/mmoptConfig.cmake" <<END
# Defines mmopt::mmopt (shared) and mmopt::static.
get_filename_component(_mmopt "\${CMAKE_CURRENT_LIST_DIR}/../../$up" ABSOLUTE)
if(NOT TARGET mmopt::mmopt)
    add_library(mmopt::mmopt SHARED IMPORTED)
    set_target_properties(mmopt::mmopt PROPERTIES
        IMPORTED_LOCATION "\${_mmopt}/$cmake_shared"$cmake_import
        INTERFACE_INCLUDE_DIRECTORIES "\${_mmopt}/include")
    add_library(mmopt::static STATIC IMPORTED)
    set_target_properties(mmopt::static PROPERTIES
        IMPORTED_LOCATION "\${_mmopt}/$lib/libmmopt.a"
        INTERFACE_INCLUDE_DIRECTORIES "\${_mmopt}/include"
        INTERFACE_COMPILE_DEFINITIONS MMOPT_STATIC
        INTERFACE_LINK_LIBRARIES "$static_needs")$cmake_hide
endif()
unset(_mmopt)
END

cat > "$root/$lib/cmake/mmopt/mmoptConfigVersion.cmake" <<END
set(PACKAGE_VERSION "$version")
set(PACKAGE_VERSION_COMPATIBLE TRUE)
if(PACKAGE_FIND_VERSION_RANGE)
    # mmopt 0.1...<0.3, or with 0.3 itself.
    if(PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION_MIN
            OR (PACKAGE_FIND_VERSION_RANGE_MAX STREQUAL "INCLUDE"
                AND PACKAGE_VERSION VERSION_GREATER PACKAGE_FIND_VERSION_MAX)
            OR (PACKAGE_FIND_VERSION_RANGE_MAX STREQUAL "EXCLUDE"
                AND NOT PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION_MAX))
        set(PACKAGE_VERSION_COMPATIBLE FALSE)
    endif()
elseif(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION
        OR NOT PACKAGE_FIND_VERSION_MAJOR STREQUAL "$major")
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
elseif(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
endif()
END
echo "installed libmmopt $version in $root"
