"""Why a build can fail: codes, meanings and advice. docs/failure-codes.md is made from them."""

from enum import StrEnum
from typing import Self


class Responsible(StrEnum):
    """Who can remove the cause of a failure."""

    AUTHOR = "the commit's author"
    DATA_OWNER = "the owner of the data"
    OPERATOR = "the operator of the registry"
    CLOUD = "AWS"
    TRAINING = "the training code at this commit"
    REGISTRY = "the registry"


class FailureCode(StrEnum):
    """Why a build failed. Stable: programs branch on it.

    A training at an older or newer commit may send a code that is not here, so codes are stored as text.
    """

    retry_helps: bool
    responsible: Responsible
    meaning: str
    advice: str

    def __new__(
        cls,
        value: str,
        retry_helps: bool,  # noqa: FBT001
        responsible: Responsible,
        meaning: str,
        advice: str,
    ) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.retry_helps = retry_helps
        member.responsible = responsible
        member.meaning = meaning
        member.advice = advice
        return member

    # Each member reads as a row of a table: code, whether a retry helps, who is responsible; meaning; advice.
    # fmt: off
    # Before an instance is launched
    MISSING_INPUT = (
        "missing_input", False, Responsible.DATA_OWNER,
        "The bucket's root lacks raw_source_data.zip or benchmarking_data.zip.",
        "Put the file there, then post the build again.",
    )
    UNUSABLE_INPUT = (
        "unusable_input", False, Responsible.DATA_OWNER,
        "An input in the bucket's root is not a whole zip archive.",
        "Upload the file again, then post the build again.",
    )
    PREFIX_TAKEN = (
        "prefix_taken", False, Responsible.OPERATOR,
        "The bucket has objects under the prefix that this registry did not write.",
        "Raise the version in search-config.toml, or move the objects away.",
    )
    NO_IMAGE = (
        "no_image", False, Responsible.OPERATOR,
        "No machine image of the configured name and owner is available and fits the instance type.",
        "Make one with Packer (.packer/), or set REGISTRY_IMAGE_NAME_PATTERN and REGISTRY_IMAGE_OWNERS.",
    )
    NO_NETWORK = (
        "no_network", False, Responsible.OPERATOR,
        "The configured subnet or security group does not exist, or is not unique.",
        "Set REGISTRY_SUBNET_CIDR and REGISTRY_SECURITY_GROUP to what the account has.",
    )
    UNKNOWN_COMMIT = (
        "unknown_commit", False, Responsible.AUTHOR,
        "The commit is not in the training repository.",
        "Push the commit, then post the build again.",
    )
    NOT_REPRODUCIBLE = (
        "not_reproducible", False, Responsible.OPERATOR,
        "Something that the model was made from cannot be had any more as it was recorded.",
        "Restore it, or ask for the reproduction again and accept what is there now in its place.",
    )
    CONFIG_DIFFERS_FROM_COMMIT = (
        "config_differs_from_commit", False, Responsible.AUTHOR,
        "The posted search-config.toml has other values than the file at that commit.",
        "Commit the configuration and post that commit, or post with force.",
    )

    # AWS
    NO_CAPACITY = (
        "no_capacity", True, Responsible.CLOUD,
        "AWS has no instance of the wanted type now.",
        "Post the build again later, or configure another instance type.",
    )
    QUOTA_EXCEEDED = (
        "quota_exceeded", False, Responsible.OPERATOR,
        "The account has reached its limit of instances.",
        "Raise the limit in AWS, or wait until other instances have ended; then post the build again.",
    )
    CLOUD_AUTH = (
        "cloud_auth", False, Responsible.OPERATOR,
        "AWS refused the worker's credentials or their rights.",
        "Check the worker's IAM role against the README, then post the build again.",
    )
    CLOUD_ERROR = (
        "cloud_error", True, Responsible.CLOUD,
        "AWS refused a call for another reason, which the message quotes.",
        "Do what the message of AWS says, then post the build again.",
    )
    TOO_MANY_LAUNCHES = (
        "too_many_launches", True, Responsible.CLOUD,
        "The build lost each of its instances and has used up its launches.",
        "Look at the build's launches to see why the instances ended; then post the build again.",
    )

    # The instance
    INSTANCE_LOST = (
        "instance_lost", True, Responsible.CLOUD,
        "The instance ended although the registry did not terminate it.",
        "A build gets up to three instances by itself. If it has failed, post it again.",
    )
    INSTANCE_IMPAIRED = (
        "instance_impaired", True, Responsible.CLOUD,
        "EC2's own checks found the instance impaired.",
        "A build gets up to three instances by itself. If it has failed, post it again.",
    )
    NO_KEY = (
        "no_key", False, Responsible.OPERATOR,
        "The secret with the SSH key is missing, or does not hold a private key.",
        "Set REGISTRY_SSH_KEY_SECRET to a secret that holds the private key of REGISTRY_KEY_NAME.",
    )
    CONNECTION_REFUSED = (
        "connection_refused", False, Responsible.OPERATOR,
        "The instance refused the SSH key, or showed another host key than before.",
        "Compare REGISTRY_KEY_NAME with the key in REGISTRY_SSH_KEY_SECRET.",
    )
    INVALID_IMAGE = (
        "invalid_image", False, Responsible.OPERATOR,
        "The machine image does not provide what docs/training-machine.md asks for.",
        "Repair the image, raise .packer/ami-version.txt and make it again.",
    )
    COMMAND_FAILED = (
        "command_failed", False, Responsible.OPERATOR,
        "A command of the worker failed on the instance.",
        "The message quotes the command's output. Repair its cause, then post the build again.",
    )
    INSTANCE_FAULT = (
        "instance_fault", False, Responsible.OPERATOR,
        "The instance's disk is full, read-only or not writable by the login user.",
        "Use an image or instance type with a larger disk, then post the build again.",
    )
    CORRUPT_TRANSFER = (
        "corrupt_transfer", True, Responsible.CLOUD,
        "A file arrived with another digest than it was sent with.",
        "Post the build again.",
    )

    # Signing
    NO_SIGNING_KEY = (
        "no_signing_key", False, Responsible.OPERATOR,
        "The setting or the secret with the key that models are signed with does not hold such a key.",
        "Correct REGISTRY_SIGNING_KEY or the secret that REGISTRY_SIGNING_KEY_SECRET names.",
    )

    # The job on the instance
    KILLED = (
        "killed", False, Responsible.TRAINING,
        "The training was killed and left no exit status. Most often its memory ran out.",
        "Read the end of the build's log. Use a larger instance type if memory ran out.",
    )
    REBOOTED = (
        "rebooted", True, Responsible.CLOUD,
        "The instance rebooted while the training ran, which ended it.",
        "A build gets up to three instances by itself. If it has failed, post it again.",
    )
    INTERRUPTED = (
        "interrupted", True, Responsible.CLOUD,
        "The training was asked to end by SIGTERM, as when its instance is shut down.",
        "A build gets up to three instances by itself. If it has failed, post it again.",
    )
    STALLED = (
        "stalled", False, Responsible.TRAINING,
        "The training wrote neither a log line nor progress for too long.",
        "Read the end of the build's log to see where it hangs.",
    )
    INVALID_RESULT = (
        "invalid_result", False, Responsible.TRAINING,
        "The training left a result.json that violates the contract.",
        "Repair the training code; docs/training-machine.md describes the contract.",
    )
    MISSING_OUTPUT = (
        "missing_output", False, Responsible.TRAINING,
        "The training succeeded, but lacks a file that it must make.",
        "Repair the training code; docs/training-machine.md names the files.",
    )
    INVALID_CONFIG = (
        "invalid_config", False, Responsible.AUTHOR,
        "The training cannot use search-config.toml.",
        "Correct the keys that the message names.",
    )
    INVALID_JOB = (
        "invalid_job", False, Responsible.REGISTRY,
        "The training cannot read the job that the worker gave it.",
        "The training code at this commit and the worker do not fit together; report it.",
    )
    MISSING_SOURCE = (
        "missing_source", False, Responsible.DATA_OWNER,
        "A data source that the configuration names is not there.",
        "Add the file to raw_source_data.zip or to the commit, or correct its path in search-config.toml.",
    )
    UNREADABLE_SOURCE = (
        "unreadable_source", False, Responsible.DATA_OWNER,
        "A data source cannot be read.",
        "Correct the file that the message names.",
    )
    NO_CLASSES = (
        "no_classes", False, Responsible.DATA_OWNER,
        "After reading and filtering, the sources have no code that a model could learn.",
        "Check the codes in the sources, and the filters in search-config.toml.",
    )
    MISSING_BENCHMARK = (
        "missing_benchmark", False, Responsible.DATA_OWNER,
        "benchmarking_data.zip holds nothing that can be measured.",
        "Correct the benchmark data, then post the build again.",
    )
    DIVERGED = (
        "diverged", False, Responsible.AUTHOR,
        "The training's weights became infinite or not a number.",
        "Lower learning_rate in search-config.toml.",
    )
    OUT_OF_MEMORY = (
        "out_of_memory", False, Responsible.AUTHOR,
        "The training needed more memory than the instance has.",
        "Lower the batch sizes in search-config.toml, or use a larger instance type.",
    )
    OUT_OF_DISK = (
        "out_of_disk", False, Responsible.OPERATOR,
        "The training filled the instance's disk.",
        "Use an image or instance type with a larger disk.",
    )
    CRASHED = (
        "crashed", False, Responsible.TRAINING,
        "The training ended with an unexpected error.",
        "Read the traceback at the end of the build's log.",
    )

    # After the training
    CORRUPT_INPUT = (
        "corrupt_input", False, Responsible.OPERATOR,
        "The content of an object under inputs/sha256/ does not match the digest in its name.",
        "Find out who wrote it and move it away; then post the build again.",
    )
    CORRUPT_ARTIFACT = (
        "corrupt_artifact", False, Responsible.OPERATOR,
        "An artifact is not in the bucket as the registry wrote it.",
        "Find out who else writes to the bucket; then post the build again.",
    )

    # Any step
    DEADLINE_EXCEEDED = (
        "deadline_exceeded", True, Responsible.OPERATOR,
        "A step did not end before its deadline.",
        "The build's log shows how far it got and what it waited for.",
    )
    INTERNAL_ERROR = (
        "internal_error", False, Responsible.REGISTRY,
        "A defect of the registry ended the build.",
        "Report it with the end of the build's log.",
    )
    # fmt: on
