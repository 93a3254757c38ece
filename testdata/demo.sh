#!/bin/sh
# The main job on the real model in testdata/fraud, with a local registry of its
# own. Every command is printed before it runs.
set -eu

galley=$(pwd)/bin/galley
project=$(pwd)/testdata/fraud
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

export GALLEY_LOCAL="$work/registry"
mkdir "$work/project"
cp -R "$project/models" "$project/data" "$work/project/"
cd "$work/project"

run() {
	printf '\n$ %s\n' "$*"
	"$@"
}
galley() { "$galley" "$@"; }

run galley inspect models/random_forest_final_model.joblib
run galley scan models/random_forest_final_model.joblib
run galley push fraud-detector:v1,candidate
run galley push fraud-detector:candidate
run galley inspect fraud-detector:v1
run galley bake fraud-detector:v1 --base scratch --tag fraud-model:v1
run galley verify fraud-model:v1
run galley pull fraud-detector:v1 -o ../app
run cmp models/random_forest_final_model.joblib ../app/models/random_forest_final_model.joblib
run cmp data/selected_features.json ../app/data/selected_features.json
run cmp data/training_summary.json ../app/data/training_summary.json
printf '\nthe three files came back byte for byte\n'

# From candidate to production. The retrained models of this part are the same
# one with another summary, for there is no Python here.
retrained() { sed "s/\"test_recall\": [0-9.]*/\"test_recall\": $1/" "$project/data/training_summary.json" >data/training_summary.json; }
refused() {
	printf '\n$ %s\n' "$*"
	status=0
	"$@" || status=$?
	[ "$status" = 3 ] || exit 1
}

cat >galley.yaml <<'YAML'
repository: fraud-detector
metrics:
  recall: {path: test_metrics.test_recall}
stages:
  staging: {}
  production:
    from: staging
    require: ["recall >= 0.4", "recall >= current.recall * 0.97"]
YAML
run cat galley.yaml
run galley promote :v1 staging
run galley promote :v1 production --bootstrap --reason 'first release'
retrained 0.31
refused galley promote . production --dry-run
retrained 0.52
run galley push :v2,candidate
run galley diff :production :candidate
run galley promote :candidate staging
run galley promote :staging production --reason 'better recall'
run galley history :production
run galley rollback :production --reason 'a bad release'
refused galley promote :v2 production
run galley status
run galley unhold :production
run galley hold :production --reason 'audit'
run galley unhold :production
run galley history :production
run galley ls :
