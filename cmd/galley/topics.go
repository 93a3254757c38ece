package main

import "github.com/spf13/cobra"

// topics are help without a command: galley help NAME.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "references", Short: "How to name an artifact", Long: referencesTopic, GroupID: groupOther},
		{Use: "exit-codes", Short: "What galley's exit code says", Long: exitCodesTopic, GroupID: groupOther},
		{Use: "galley.yaml", Short: "The project's file, every key of it", Long: configTopic, GroupID: groupOther},
	}
}

const referencesTopic = `A reference names a repository and, with a :TAG or @DIGEST, one artifact in it.
Every command takes every form. Commands that read take the tag "latest" where
there is none.

A registry, if there is a slash and before it a dot, a colon or "localhost":

  ghcr.io/acme/fraud-detector:v42
  localhost:5000/fraud@sha256:9371d52d14962dabc140b7ef8195aadde13cdeda52ce48f0b0c6a656e9690c9c
  docker.io/acme/fraud:v42

The local registry, a directory on this machine: $GALLEY_LOCAL, else "galley"
among the user's data. It needs no server.

  fraud:v42
  local/team/fraud:v42

An OCI layout, in a directory or, if the path ends in .tar, in a file to carry to
a site without a network:

  oci:outbox:v42
  oci:/media/usb/fraud.tar:v42

The repository of galley.yaml, or of $GALLEY_REPOSITORY:

  :candidate
  @sha256:9371d52d14962dabc140b7ef8195aadde13cdeda52ce48f0b0c6a656e9690c9c

Commands that read take it from a variable too, as '$MODEL', for an image from
scratch has no shell that would.

Commands that write take several tags, as in fraud:v42,candidate. A name with a
slash and no host, like acme/fraud, is refused: to some it means Docker Hub, to
others the local registry.`

const exitCodesTopic = `A script can tell an answer from a failure by the exit code:
` + exitCodes + `
3 is an answer and not a failure: a check was made and says no. 1 may go away
when the command is run again, 2 and 5 do not by themselves, 4 wants galley login.`

const configTopic = `The file galley.yaml in the project's directory is optional, and so is every key;
galley init writes one from what it finds.

  name: fraud-detector
  version: "42"                       # else none; never taken from the tag
  repository: ghcr.io/acme/fraud-detector
  files:                              # what is not named is looked for
    model: "models/*_final_model.joblib"
    as: models/model.joblib           # the model's path in the artifact
    parts: [models/scaler.joblib]
    features: [data/selected_features.json]
    summary: [data/training_summary.json]
    docs: [README.md]
    code: [src/*.py]
    data: [data/reference.csv]
  features:
    path: selected_features           # where the list stands in its file
  metrics:                            # short names for paths of the summary
    roc_auc: test_metrics.test_roc_auc
    brier: {path: test_metrics.test_brier, better: lower}
  stages:
    staging: {}
    production:
      from: staging
      require: ["roc_auc >= 0.65", "recall >= current.recall * 0.97"]
      warn: ["precision >= current.precision * 0.95"]
      soak: 24h                       # in staging
      max-age: 30d                    # since it was trained
      features: same                  # the default; superset, any
      runtime: same                   # scikit-learn, numpy; any is the default
      path: same                      # of the model's file; any is the default
      scan: pass                      # read the model; declared is the default
      same: [test_rows]               # what both summaries agree on
  versions: "^v?[0-9]|^keep-"         # tags that never move
  history: ghcr.io/acme/fraud-history # records promotions; else the repository`
