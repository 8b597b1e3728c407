"""GitOps: the git server, repositories as users see them, and Argo CD as scenarios see it."""
