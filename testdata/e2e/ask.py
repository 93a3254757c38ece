"""Ask the service what it makes of transactions, from inside its container.

On stdin are the transactions, as in service.py's expected.json; on stdout come the
user, the answer of /health, each probability as it stood in the answer, and what was
said about transactions whose features are not the model's.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

SERVICE = "http://127.0.0.1:8000"
PATIENCE = 60  # seconds until the service answers


def get(path: str) -> str:
    with urllib.request.urlopen(SERVICE + path, timeout=10) as response:
        return response.read().decode()


def predict(features: dict[str, Any]) -> str:
    request = urllib.request.Request(
        SERVICE + "/predict",
        json.dumps({"features": features}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


def refusal(features: dict[str, Any]) -> str:
    """Return why the service refuses the features."""
    try:
        return f"not refused: {predict(features)}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error)['detail']}"


def wait() -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return get("/health")
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def main() -> None:
    expected = json.load(sys.stdin)
    health = json.loads(wait())
    transactions = [t["features"] for t in expected["transactions"]]
    first = transactions[0]
    name = next(iter(first))
    swapped = {k: first[k] for k in reversed(first)}
    answers = [json.loads(predict(t), parse_float=str) for t in transactions]
    print(
        json.dumps(
            {
                "user": os.getuid(),
                "health": health,
                "probabilities": [a["probability"] for a in answers],
                "refused": {
                    "missing": refusal({k: v for k, v in first.items() if k != name}),
                    "unknown": refusal(first | {"colour": 1}),
                    "order": refusal(swapped),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
