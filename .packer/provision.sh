#!/usr/bin/env bash
# Turns a Deep Learning Base image into a training machine: run once by Packer, as the login user.
#
# Reads TRAINING_REPOSITORY (git URL), TRAINING_REVISION (branch or tag) and TRANSFORMERS (NAME or
# NAME@REVISION, separated by spaces). What it leaves is the contract in docs/training-machine.md.
set -euo pipefail

: "${TRAINING_REPOSITORY:?the git URL of the training repository}"
: "${TRAINING_REVISION:?the branch or tag to take the dependencies of}"
: "${TRANSFORMERS:?the sentence-transformers to download}"

training="$HOME/training"
repository="$training/repository"
python="$training/environment/bin/python"

# 2: done, with complaints that are not ours.
sudo cloud-init status --wait >/dev/null || [ $? -eq 2 ]

# An upgrade of the driver in the middle of a training run takes the GPU away from it.
sudo systemctl disable --now unattended-upgrades.service apt-daily.timer apt-daily-upgrade.timer

apt_get() {
    sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -yq "$@"
}
apt_get update
apt_get install git software-properties-common
# Ubuntu 22.04 has a release candidate of Python 3.11 only.
sudo add-apt-repository -y ppa:deadsnakes/ppa
apt_get update
apt_get install python3.11 python3.11-venv

mkdir -p "$training/transformers"
git clone "$TRAINING_REPOSITORY" "$repository"
git -C "$repository" checkout --detach "$TRAINING_REVISION"

python3.11 -m venv "$training/environment"
"$python" -m pip install --no-cache-dir --upgrade pip
"$python" -m pip install --no-cache-dir -c "$repository/constraints.txt" "${repository}[training]"
# The dependencies stay, the code goes: it comes with each build, at the build's commit.
"$python" -m pip uninstall --yes tariff-model-registry
# Each training reports the digest of what its environment was installed from.
cp "$repository/constraints.txt" "$training/environment/constraints.txt"

for transformer in $TRANSFORMERS; do
    "$python" - "$transformer" "$training/transformers" <<'PYTHON'
import shutil
import sys
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

name, _, revision = sys.argv[1].partition("@")
folder = Path(sys.argv[2], name)
repository = f"sentence-transformers/{name}"
# What a branch leads to changes, and each training reports the commit.
commit = HfApi().model_info(repository, revision=revision or None).sha
snapshot_download(
    repository,
    revision=commit,
    local_dir=folder,
    # The same weights again, for other frameworks.
    ignore_patterns=["onnx/*", "openvino/*", "*.bin", "*.h5", "*.ot", "*.onnx"],
)
shutil.rmtree(folder / ".cache", ignore_errors=True)
(folder / ".revision").write_text(f"{commit}\n")
PYTHON
done

# An image that cannot do what it is for must not get its name.
for command in sh setsid nohup flock git sha256sum; do
    command -v "$command" >/dev/null || {
        echo "the image lacks $command" >&2
        exit 1
    }
done
"$python" - "$training/transformers" <<'PYTHON'
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

if not torch.cuda.is_available():
    sys.exit(f"torch {torch.__version__} cannot use this machine's GPU: look at nvidia-smi and the driver's version")
for folder in sorted(Path(sys.argv[1]).iterdir()):
    length = SentenceTransformer(str(folder), device="cuda").encode("stainless steel kitchen knife").shape[0]
    print(f"{folder.name}: {length} dimensions on {torch.cuda.get_device_name()}")
PYTHON

sudo apt-get clean
rm -rf "$HOME/.cache"
