#!/usr/bin/env bash
# Puts the result of the push into a comment on the pull request.
# https://docs.github.com/rest/issues/comments#create-an-issue-comment
set -euo pipefail

run="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
case ${OUTCOME:-} in
    succeeded) text="Release $RELEASE is running${URL:+ at $URL}." ;;
    "") text="Nothing was deployed." ;;
    *) text="Release ${RELEASE:-?}: $OUTCOME. What ran before still runs, unless it says otherwise." ;;
esac
jq --null-input --arg body "**Helix Deploy**: $text [The whole story]($run)" '{body: $body}' |
    curl --silent --show-error --fail --retry 3 --output /dev/null \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$TOKEN") \
        --header "Accept: application/vnd.github+json" --data-binary @- "$COMMENTS"
