"""Unpacks the kernel in a bzImage: python3 unpack.py VMLINUZ VMLINUX (Documentation/x86/boot.rst: the fields at 0x1f1 and 0x248)."""
import lzma
import struct
import subprocess
import sys

image = open(sys.argv[1], "rb").read()
setup_sectors = image[0x1F1] or 4
offset, length = struct.unpack_from("<II", image, 0x248)
start = (setup_sectors + 1) * 512 + offset
payload = image[start:start + length]
if payload.startswith(b"\xfd7zXZ\0"):
    kernel = lzma.LZMADecompressor().decompress(payload)
elif payload.startswith(b"\x28\xb5\x2f\xfd"):
    kernel = subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
else:
    sys.exit(f"a payload that begins with {payload[:8].hex()}")
if not kernel.startswith(b"\x7fELF"):
    sys.exit("what was unpacked is no kernel")
open(sys.argv[2], "wb").write(kernel)
