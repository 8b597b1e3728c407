"""Promotion of releases: dev, then staging behind a health gate, then production behind an approval.

Every promotion is a commit into the GitOps repository; Argo CD does the rest. What is where, so that a killed promoter
loses nothing and does nothing twice:

- which release runs where: in the repository itself. A promotion's commit names, in its trailers, the commit that
  brought the release to dev and who approved it. It is made without a working copy and pushed onto the head that was
  read, so that it is there whole or not at all, and a push that came first makes it start again;
- how long an environment has been well: in Argo CD (since when) and Prometheus (how well), not in the promoter;
- approvals: in a ledger (SQLite), written before the answer; the commit follows and is looked for before it is made.

Why our own: Kargo and GitOps Promoter are not served by the Go module proxy, which is where every tool of the testbed
comes from; Kargo needs Argo Rollouts for its gate, and neither takes approvals from Slack. argo-events verifies
Slack's signatures and has neither gate nor order of releases. Libraries do the rest: slack_sdk, ruamel.yaml, git.
"""
