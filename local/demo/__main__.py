"""`python -m local.demo OUT_DIR`: write the demo's raw_source_data.zip and benchmarking_data.zip."""

from pathlib import Path
from typing import Annotated

import boto3
import typer

from app.storage.keys import BENCHMARKING_DATA, RAW_SOURCE_DATA
from local.demo import inputs

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    out_dir: Annotated[Path, typer.Argument(help="Folder for the two zips. It is made if it is missing.")],
    from_folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Zip the folders raw_source_data/, reference_data/ and benchmarking_data/ of this folder, "
            "in place of data made from the nomenclature.",
        ),
    ] = None,
    bucket: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Put both zips into the root of this S3 bucket as well."),
    ] = None,
) -> None:
    """Write raw_source_data.zip and benchmarking_data.zip. Every run writes the same bytes."""
    raw, benchmarking = out_dir / RAW_SOURCE_DATA, out_dir / BENCHMARKING_DATA
    if from_folder is None:
        inputs.build_raw_source_data(raw)
        inputs.build_benchmarking_data(benchmarking)
    else:
        try:
            inputs.build_from_folder(from_folder, raw, benchmarking)
        except inputs.MissingInputs as exc:
            raise typer.BadParameter(str(exc), param_hint="--from") from exc
    for path in (raw, benchmarking):
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")
        if bucket is not None:
            boto3.client("s3").upload_file(str(path), bucket, path.name)
            typer.echo(f"s3://{bucket}/{path.name}")


if __name__ == "__main__":
    app()
