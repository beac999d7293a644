"""Compiles the CUDA sources of a folder with NVRTC and ptxas, and tells what each kernel needs of a multiprocessor.

    python tools/emit/compile.py FOLDER [--arch sm_80 sm_90]      reads emit's lines from standard input

No GPU is needed. A table on standard output: registers, shared memory, spilled bytes, and how many cubes a
multiprocessor holds by these. Exit code 1 if a kernel spills, does not compile, or is alone on its multiprocessor.
"""

import argparse
import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

import nvidia

# A multiprocessor of sm_80 and of sm_90: registers, and bytes of shared memory that cubes may have together.
REGISTERS, SHARED = 65_536, {"sm_80": 164 << 10, "sm_90": 228 << 10}
# What the driver takes of the shared memory of each cube.
RESERVED = 1 << 10


def package(name, *path):
    """A file or folder of one of NVIDIA's packages."""
    for root in nvidia.__path__:
        found = pathlib.Path(root, name, *path)
        if found.exists():
            return found
    sys.exit(f"no {'/'.join(path)} in the package nvidia.{name}")


class Nvrtc:
    def __init__(self):
        library = next(package("cuda_nvrtc", "lib").glob("libnvrtc.so.*"))
        self.library = ctypes.CDLL(str(library))
        self.include = [package("cuda_runtime", "include"), package("cuda_nvcc", "include")]

    def ptx(self, source, name, arch):
        """The PTX of a source, or its errors."""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
        options = [f"--gpu-architecture={arch.replace('sm', 'compute')}", "--std=c++17",
                   *(f"-I{folder}" for folder in self.include)]
        options = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), options)
        what = "ProgramLog" if failed else "PTX"
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return text.value.decode(), bool(failed)


def assemble(ptxas, ptx, arch):
    """What ptxas says of the registers."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        run = subprocess.run(
            [ptxas, "-v", f"-arch={arch}", file.name, "-o", "/dev/null"], capture_output=True, text=True)
    return run.stderr, run.returncode != 0


def number(pattern, text):
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("folder", type=pathlib.Path)
    args.add_argument("--arch", nargs="+", default=["sm_80", "sm_90"])
    args = args.parse_args()
    nvrtc, ptxas, wrong = Nvrtc(), package("cuda_nvcc", "bin", "ptxas"), []

    print("| kernel | " + " | ".join(f"{arch}: registers | spilled bytes | cubes" for arch in args.arch) + " | shared KiB |")
    print("|---" * (3 * len(args.arch) + 2) + "|")
    for line in sys.stdin:
        name, units, shared = line.split()
        source, cells = (args.folder / f"{name}.cu").read_text(), [name]
        for arch in args.arch:
            text, failed = nvrtc.ptx(source, f"{name}.cu", arch)
            if not failed:
                text, failed = assemble(ptxas, text, arch)
            if failed:
                print(text, file=sys.stderr)
                wrong.append(f"{name}: {arch} does not compile")
                cells += ["", "", ""]
                continue
            registers = number(r"Used (\d+) registers", text)
            spilled = sum(number(rf"(\d+) bytes spill {way}", text) for way in ("stores", "loads"))
            # Registers are given to a warp of 32 by 256.
            by_registers = REGISTERS // (-(-registers * 32 // 256) * 256 * (int(units) // 32))
            static = number(r"(\d+) bytes smem", text)
            cubes = min(by_registers, SHARED[arch] // (max(static, int(shared)) + RESERVED), 2048 // int(units))
            cells += [str(registers), str(spilled), str(cubes)]
            if spilled:
                wrong.append(f"{name}: {arch} spills {spilled} bytes")
            if cubes < 2:
                wrong.append(f"{name}: {arch} holds {cubes} cube a multiprocessor")
        print("| " + " | ".join(cells) + f" | {int(shared) / 1024:.1f} |", flush=True)
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
