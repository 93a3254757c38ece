package main

import (
	"cmp"
	"os"
	"os/user"
	"slices"
	"strings"
)

// runURL is where the log of the CI run is, as the usual CI systems tell.
func runURL(env func(string) string) string {
	join := func(parts ...string) string {
		if slices.Contains(parts, "") {
			return ""
		}
		return strings.Join(parts, "/")
	}
	return cmp.Or(
		join(env("GITHUB_SERVER_URL"), env("GITHUB_REPOSITORY"), "actions/runs", env("GITHUB_RUN_ID")),
		env("CI_JOB_URL"),          // GitLab
		env("CIRCLE_BUILD_URL"),    // CircleCI
		env("BUILDKITE_BUILD_URL"), // Buildkite
		env("BUILD_URL"),           // Jenkins
		join(strings.TrimSuffix(env("SYSTEM_TEAMFOUNDATIONCOLLECTIONURI"), "/"), env("SYSTEM_TEAMPROJECT"), "_build/results?buildId="+env("BUILD_BUILDID")),
		join(env("BITBUCKET_GIT_HTTP_ORIGIN"), "pipelines/results", env("BITBUCKET_BUILD_NUMBER")),
	)
}

// actor is who says that they are at work: of the CI run, else on this machine.
func actor(env func(string) string) string {
	if who := cmp.Or(
		env("GITHUB_ACTOR"), env("GITLAB_USER_LOGIN"), env("CIRCLE_USERNAME"), env("BUILDKITE_BUILD_CREATOR"),
		env("BUILD_USER_ID"), env("BUILD_REQUESTEDFOR"), env("BITBUCKET_STEP_TRIGGERER_UUID"),
	); who != "" {
		return who
	}
	who := cmp.Or(env("USER"), env("USERNAME"), env("LOGNAME"))
	if u, err := user.Current(); err == nil && who == "" {
		who = u.Username
	}
	if host, err := os.Hostname(); err == nil && who != "" {
		return who + "@" + host
	}
	return who
}
