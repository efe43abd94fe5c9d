"""The private key of the launches. It is never stored, but fetched each time it is needed."""

from dataclasses import dataclass, field

import paramiko

from app.aws import CloudNotFound, translated
from app.failures import FailureCode
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.machine.remote import load_key
from worker.workbench import Workbench


@dataclass(frozen=True)
class LaunchKey:
    """The key, its text, and the version of the secret that held it."""

    key: paramiko.PKey = field(repr=False)
    pem: str = field(repr=False)
    version: str


def launch_key(work: Workbench, cloud: Cloud) -> LaunchKey:
    """Raises StepFailed, CloudError."""
    name, code = work.settings.ssh_key_secret, FailureCode.NO_KEY
    try:
        with translated():
            secret = cloud.secrets.get_secret_value(SecretId=name)
    except CloudNotFound as exc:
        message = f"Secrets Manager has no secret {name!r} in {cloud.region}. {code.advice}"
        raise StepFailed(code, message) from exc
    try:
        pem = secret["SecretString"]
        return LaunchKey(load_key(pem), pem, secret["VersionId"])
    except (KeyError, ValueError) as exc:
        message = f"The secret {name!r} does not hold a private key ({exc}). {code.advice}"
        raise StepFailed(code, message) from exc
