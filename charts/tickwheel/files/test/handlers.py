"""The handler of `helm test`: it gives back what it was given."""

from tickwheel import Context, task


@task("echo")
async def echo(ctx: Context, text: str) -> str:
    """What `run.py` compares."""
    return text
