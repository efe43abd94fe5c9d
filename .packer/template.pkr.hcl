# Makes the machine image that builds are trained on: `FPO Training {ami-version}`.
#
#   packer init .packer
#   packer build -var training_repository=https://… .packer
#
# What the image provides is the contract in docs/training-machine.md. A changed image gets a new version in
# ami-version.txt: a name that is taken is refused, and models record the image that they were trained on.

packer {
  required_version = ">= 1.9"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3"
    }
  }
}

variable "training_repository" {
  type        = string
  description = "git URL of the training repository; the instance must be able to clone it and, later, fetch from it"
}

variable "training_revision" {
  type        = string
  default     = "main"
  description = "branch or tag whose dependencies the environment gets"
}

variable "transformers" {
  type        = list(string)
  default     = ["all-MiniLM-L6-v2", "all-mpnet-base-v2"]
  description = "sentence-transformers to hold on the image, as the configurations name them; NAME@REVISION pins one"
}

variable "region" {
  type    = string
  default = "eu-west-2"
}

variable "copy_to_regions" {
  type        = list(string)
  default     = []
  description = "further regions that builds may run in"
}

variable "share_with_accounts" {
  type        = list(string)
  default     = []
  description = "further AWS accounts that may launch the image"
}

variable "kms_key_id" {
  type        = string
  default     = null
  description = "the key that encrypts the image; unset, the account's default key, which other accounts cannot use"

  validation {
    condition     = var.kms_key_id == null || can(regex("^(arn:aws:kms:|alias/|[0-9a-f-]{36}$)", var.kms_key_id))
    error_message = "This must be the id, the alias or the ARN of a KMS key."
  }
}

variable "subnet_id" {
  type        = string
  default     = null
  description = "a subnet with a way out to the internet; unset, the default VPC's"
}

variable "instance_type" {
  type        = string
  default     = "g4dn.xlarge"
  description = "needs a GPU: the image is refused if torch cannot use it"
}

variable "source_image_name" {
  type        = string
  default     = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *"
  description = "AWS's own images; the newest that matches is taken"
}

locals {
  ami_version = trimspace(file("${path.root}/ami-version.txt"))
}

source "amazon-ebs" "training" {
  region        = var.region
  subnet_id     = var.subnet_id
  instance_type = var.instance_type

  source_ami_filter {
    owners      = ["amazon"]
    most_recent = true
    filters = {
      name                = var.source_image_name
      architecture        = "x86_64"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  ssh_username = "ubuntu"
  # Only the key pair of a later launch may log in.
  ssh_clear_authorized_keys = true

  launch_block_device_mappings {
    device_name           = "/dev/sda1"
    volume_type           = "gp3"
    volume_size           = 120
    delete_on_termination = true
  }

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }
  imds_support = "v2.0"

  ami_name        = "FPO Training ${local.ami_version}"
  ami_description = "Trains tariff models, see docs/training-machine.md"
  ami_regions     = var.copy_to_regions
  ami_users       = var.share_with_accounts
  # Encrypted with the account's own key by default. An image that other accounts use needs a key that they may use.
  encrypt_boot = true
  kms_key_id   = var.kms_key_id

  tags = {
    Name                = "FPO Training ${local.ami_version}"
    managed-by          = "tariff-model-registry"
    ami-version         = local.ami_version
    source-image        = "{{ .SourceAMI }}"
    source-image-name   = "{{ .SourceAMIName }}"
    training-repository = var.training_repository
    training-revision   = var.training_revision
  }
  snapshot_tags = {
    managed-by  = "tariff-model-registry"
    ami-version = local.ami_version
  }
  # The registry's janitor terminates what carries its tag and no build owns, so the instance that the image
  # is made on must not; and the image must not inherit this one.
  skip_ami_run_tags = true
  run_tags = {
    Name       = "Packer: FPO Training ${local.ami_version}"
    managed-by = "packer"
  }
  run_volume_tags = {
    managed-by = "packer"
  }
}

build {
  sources = ["source.amazon-ebs.training"]

  provisioner "shell" {
    script = "${path.root}/provision"
    environment_vars = [
      "IMAGE_VERSION=${local.ami_version}",
      "BASE_IMAGE=${build.SourceAMI}",
      "BASE_IMAGE_NAME=${build.SourceAMIName}",
      "TRAINING_REPOSITORY=${var.training_repository}",
      "TRAINING_REVISION=${var.training_revision}",
      "TRANSFORMERS=${join(" ", var.transformers)}",
    ]
  }

  post-processor "manifest" {
    output     = "${path.root}/manifest.json"
    strip_path = true
    custom_data = {
      ami_version = local.ami_version
    }
  }
}
