"""Write a project whose model is a forest of 180 MB: forest.py OUT"""

import json
import sys
from pathlib import Path

import heavy

heavy.TREES = 300


def main() -> None:
    heavy.main()
    data = Path(sys.argv[1]) / "data"
    data.mkdir(exist_ok=True)
    names = [f"x{i}" for i in range(10)]
    (data / "selected_features.json").write_text(json.dumps(names), encoding="utf-8")
    summary = {"test_metrics": {"test_roc_auc": 0.5}}
    (data / "training_summary.json").write_text(json.dumps(summary), encoding="utf-8")


if __name__ == "__main__":
    main()
