import subprocess
import sys


def test_gateway_and_broker_need_no_torch():
    # Each process that imports torch takes most of a gigabyte.
    code = "import sys, rayramid.serve.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
