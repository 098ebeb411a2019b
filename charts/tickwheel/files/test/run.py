"""What `helm test` runs: ask for a run of the test's task, wait until it succeeds, and check what came back.

Standard library only, in the operator's image. The pool, the task and the ServiceAccount are hooks of the chart; this
makes and removes the TaskRun. Exits 1, with what the operator says about pool and task, when it takes too long.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

_ACCOUNT = Path(os.environ.get("TEST_SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
_NAMESPACE = os.environ["TEST_NAMESPACE"]
_NAME = os.environ["TEST_NAME"]
_TIMEOUT_S = float(os.environ["TEST_TIMEOUT_SECONDS"])


def request(method: str, kind: str, name: str = "", body: object = None) -> Any:
    """One request about our kinds in the test's namespace; None: there is no such object."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    address = f"[{host}]" if ":" in host else host
    url = f"https://{address}:{port}/apis/tickwheel.io/v1alpha1/namespaces/{_NAMESPACE}/{kind}"
    asked = urllib.request.Request(  # noqa: S310 - https, as above
        f"{url}/{name}" if name else url,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={
            "Authorization": f"Bearer {(_ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        },
    )
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(asked, context=context, timeout=10) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404 and method in ("GET", "DELETE"):
            return None
        sys.exit(f"{method} {kind}/{name}: {error.code} {error.read().decode(errors='replace')}")


def main() -> int:
    """Returns the exit code."""
    deadline = time.monotonic() + _TIMEOUT_S
    remove(deadline)  # of a test that was interrupted
    text = uuid.uuid4().hex
    run = {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "TaskRun",
        "metadata": {"name": _NAME},
        "spec": {"task": _NAME, "parameters": {"text": text}},
    }
    request("POST", "taskruns", body=run)
    print(f"asked for a run: taskrun/{_NAME} in {_NAMESPACE}", flush=True)
    try:
        return watch(text, deadline)
    finally:
        remove(time.monotonic() + 10)


def watch(text: str, deadline: float) -> int:
    """Wait for the run's end."""
    said = ""
    while time.monotonic() < deadline:
        status = (request("GET", "taskruns", _NAME) or {}).get("status") or {}
        state = status.get("state") or "not seen by the operator yet"
        if state != said:
            print(f"the run is {state}", flush=True)
            said = state
        if state == "Succeeded":
            if status.get("result") != text:
                print(f"the handler was given {text!r}, and the result is {status.get('result')!r}")
                return 1
            print(f"worker {status.get('worker')} did it; it was {status.get('lateness')} late")
            return 0
        if state in ("Failed", "Cancelled"):
            break
        time.sleep(0.5)
    else:
        print(f"it did not end within {_TIMEOUT_S:.0f} s")
    for kind in ("taskruns", "scheduledtasks", "workerpools"):
        status = (request("GET", kind, _NAME) or {}).get("status")
        print(f"{kind}/{_NAME}: {json.dumps(status, indent=2)}")
    return 1


def remove(deadline: float) -> None:
    """Delete the TaskRun, and wait until it is gone."""
    request("DELETE", "taskruns", _NAME)
    while request("GET", "taskruns", _NAME) is not None and time.monotonic() < deadline:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
