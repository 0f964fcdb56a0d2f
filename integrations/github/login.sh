#!/usr/bin/env bash
# Gives the next steps of the job an identity in each cloud that was asked for: the job's OIDC token in a
# private file, and the variables by which that cloud's SDK finds it. Needs `permissions: id-token: write`.
# https://docs.github.com/actions/security-for-github-actions/security-hardening-your-deployments/about-security-hardening-with-openid-connect
set -euo pipefail
umask 077

# The token goes from the answer into the file: it is never an argument of a process, nor in the log.
token() {
    local audience=$1 file=$2
    if [ -z "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ]; then
        echo "::error::the job may not have an OIDC token: add «permissions: id-token: write» to it"
        exit 1
    fi
    curl --silent --show-error --fail --retry 3 --get \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN") \
        --data-urlencode "audience=$audience" "$ACTIONS_ID_TOKEN_REQUEST_URL" |
        jq --raw-output --join-output .value > "$file"
}

say() { echo "$1" >> "$GITHUB_ENV"; }

if [ -n "$AWS_ROLE" ]; then
    token sts.amazonaws.com "$RUNNER_TEMP/aws.jwt"
    say "AWS_ROLE_ARN=$AWS_ROLE"
    say "AWS_WEB_IDENTITY_TOKEN_FILE=$RUNNER_TEMP/aws.jwt"
fi

if [ -n "$GOOGLE_AUDIENCE" ]; then
    token "https:$GOOGLE_AUDIENCE" "$RUNNER_TEMP/google.jwt"
    jq --null-input --arg audience "$GOOGLE_AUDIENCE" --arg file "$RUNNER_TEMP/google.jwt" \
        --arg account "$GOOGLE_SERVICE_ACCOUNT" '{
            type: "external_account",
            audience: $audience,
            subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
            token_url: "https://sts.googleapis.com/v1/token",
            credential_source: {file: $file}
        } + if $account == "" then {} else {
            service_account_impersonation_url:
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/\($account):generateAccessToken"
        } end' > "$RUNNER_TEMP/google.json"
    say "GOOGLE_APPLICATION_CREDENTIALS=$RUNNER_TEMP/google.json"
fi

if [ -n "$AZURE_CLIENT" ]; then
    token api://AzureADTokenExchange "$RUNNER_TEMP/azure.jwt"
    say "AZURE_CLIENT_ID=$AZURE_CLIENT"
    say "AZURE_TENANT_ID=$AZURE_TENANT"
    say "AZURE_FEDERATED_TOKEN_FILE=$RUNNER_TEMP/azure.jwt"
fi
