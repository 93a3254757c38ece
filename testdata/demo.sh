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
