"""Secrets by their documented shape: one row a format. The table is data; it knows nothing of how it is searched.

Prefixes and lengths come from the issuers' public documentation. A pattern is RE2 over bytes and has one group: the
secret. No pattern matches across a line break, and a space only where `cutting.joins` knows of it. Prefer `+` to large
counts: RE2 unrolls counts.
"""

# ruff: noqa: E501 - one row a format reads and greps better than wrapped ones

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.filters import checks

_LEFT = r"(?:\b|\\[nrt])"
"""Begins at a word boundary, or after an escaped line break as in JSON inside of text."""


class Format(NamedTuple):
    """`check` scores a candidate (0.0: it is none). A generic form gives way to a documented one where they overlap."""

    name: str
    description: str
    pattern: str
    check: Callable[[bytes], float] | None = None
    generic: bool = False


def _token(
    name: str, description: str, body: str, check: Callable[[bytes], float] | None = None, right: str = r"\b"
) -> Format:
    return Format(name, description, f"{_LEFT}({body}){right}", check)


_DOCUMENTED = (
    # Clouds
    _token("aws_access_key_id", "AWS access key id", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),
    _token("aws_bedrock_key", "AWS Bedrock API key", r"ABSK[A-Za-z0-9+/]{100,140}={0,2}", right=""),
    _token("gcp_api_key", "Google API key", r"AIza[A-Za-z0-9_-]{35}", right=""),
    _token("gcp_oauth_token", "Google OAuth access token", r"ya29\.[A-Za-z0-9_-]{30,}", right=""),
    _token("gcp_client_secret", "Google OAuth client secret", r"GOCSPX-[A-Za-z0-9_-]{28}", right=""),
    Format("azure_storage_key", "Azure storage account key", r"(?i:AccountKey)=([A-Za-z0-9+/]{86}==)"),
    Format("azure_sas_signature", "signature of an Azure shared access URL", r"[?&;]sig=([A-Za-z0-9%+/]{43,}(?:=|%3[Dd]))"),
    Format("azure_client_secret", "Entra ID client secret", r"(?:^|[^A-Za-z0-9_.~-])([A-Za-z0-9_.~-]{3}[0-9]Q~[A-Za-z0-9_.~-]{31,34})"),
    _token("digitalocean_token", "DigitalOcean token", r"do[opr]_v1_[a-f0-9]{64}"),
    _token("heroku_key", "Heroku API key", r"HRKU-[A-Za-z0-9_-]{36,}", right=""),
    _token("flyio_token", "Fly.io token", r"(?:fo1_[A-Za-z0-9_-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{100,}={0,3})", right=""),
    _token("cloudflare_origin_key", "Cloudflare origin CA key", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}"),
    _token("databricks_token", "Databricks token", r"dapi[a-f0-9]{32}(?:-[0-9]+)?"),
    _token("netlify_token", "Netlify token", r"nfp_[A-Za-z0-9]{36,}"),
    _token("supabase_key", "Supabase token or secret key", r"(?:sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{22,})", right=""),
    _token("planetscale_token", "PlanetScale token or password", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9=._-]{32,}", right=""),
    # Source code and packages
    _token("github_token", "GitHub token", r"gh[pousr]_[A-Za-z0-9]{36}", checks.crc32_base62),
    _token("github_fine_grained_token", "GitHub fine-grained token", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _token("gitlab_token", "GitLab token", r"gl(?:pat|oas|dt|rt|cbt|ptt|ft|soat|agent|imt|ffct)-[A-Za-z0-9_.-]*[A-Za-z0-9_-]{20}", right=""),
    _token("bitbucket_token", "Bitbucket app password or token", r"ATBB[A-Za-z0-9_=.-]{28,}", right=""),
    _token("atlassian_token", "Atlassian API token", r"ATATT3[A-Za-z0-9_=-]{60,}", right=""),
    _token("npm_token", "npm access token", r"npm_[A-Za-z0-9]{36}", checks.crc32_base62),
    _token("pypi_token", "PyPI API token", r"pypi-AgE[A-Za-z0-9_-]{50,}", right=""),
    _token("rubygems_key", "RubyGems API key", r"rubygems_[a-f0-9]{48}"),
    _token("crates_token", "crates.io token", r"cio[A-Za-z0-9]{32}", checks.random_looking),
    _token("nuget_key", "NuGet API key", r"oy2[a-z0-9]{43}", checks.random_looking),
    _token("docker_token", "Docker Hub token", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,}", right=""),
    _token("artifactory_key", "JFrog Artifactory API key", r"AKCp[A-Za-z0-9]{69}"),
    _token("sonar_token", "SonarQube token", r"sq[upa]_[a-f0-9]{40}"),
    _token("circleci_token", "CircleCI token", r"CCI(?:PAT|PRJ)_[A-Za-z0-9]{22}_[a-f0-9]{40}"),
    _token("buildkite_token", "Buildkite token", r"bkua_[a-z0-9]{40}"),
    _token("sentry_token", "Sentry token", r"sntry[su]_[A-Za-z0-9+/=_-]{40,}", right=""),
    # Models
    _token("openai_key", "OpenAI API key", r"sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{40,}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|[A-Za-z0-9]{48})", right=""),
    _token("anthropic_key", "Anthropic API key", r"sk-ant-[a-z]+[0-9]{2}-[A-Za-z0-9_-]{80,}", right=""),
    _token("openrouter_key", "OpenRouter API key", r"sk-or-v1-[a-f0-9]{64}"),
    _token("huggingface_token", "Hugging Face token", r"(?:hf_|api_org_)[A-Za-z0-9]{34}"),
    _token("groq_key", "Groq API key", r"gsk_[A-Za-z0-9]{52}"),
    _token("xai_key", "xAI API key", r"xai-[A-Za-z0-9]{80}"),
    _token("perplexity_key", "Perplexity API key", r"pplx-[A-Za-z0-9]{48}"),
    _token("replicate_token", "Replicate token", r"r8_[A-Za-z0-9]{37}"),
    _token("langsmith_key", "LangSmith API key", r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
    _token("pinecone_key", "Pinecone API key", r"pcsk_[A-Za-z0-9]{5,7}_[A-Za-z0-9]{60,}"),
    # Payments and shops
    _token("stripe_key", "Stripe secret or restricted key", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"),
    _token("stripe_webhook_secret", "Stripe webhook signing secret", r"whsec_[A-Za-z0-9+/]{32,}={0,2}", right=""),
    _token("square_token", "Square access token", r"(?:sq0(?:atp|csp)-[A-Za-z0-9_-]{22,43}|EAAA[A-Za-z0-9_-]{60})", right=""),
    _token("shopify_token", "Shopify token or shared secret", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _token("razorpay_key", "Razorpay live key id", r"rzp_live_[A-Za-z0-9]{14}"),
    _token("flutterwave_key", "Flutterwave secret key", r"FLWSECK(?:_TEST)?-[A-Za-z0-9]{12,64}(?:-X)?", right=""),
    _token("plaid_token", "Plaid access token", r"access-(?:sandbox|development|production)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    # Messages and mail
    _token("slack_token", "Slack token", r"xox(?:[abposr]|e(?:\.xox[bp])?)-[A-Za-z0-9-]{20,}", right=""),
    _token("slack_app_token", "Slack app-level token", r"xapp-[0-9]-[A-Z0-9]{8,}-[0-9]{8,}-[a-f0-9]{32,}"),
    Format("slack_webhook", "Slack webhook URL", r"(hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{40,})"),
    Format("discord_webhook", "Discord webhook URL", r"(discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60,})"),
    _token("discord_bot_token", "Discord bot token", r"[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}", checks.random_looking, right=""),
    Format("telegram_bot_token", "Telegram bot token", r"(?:\b|bot)([0-9]{8,10}:A[A-Za-z0-9_-]{34})"),
    _token("twilio_key", "Twilio API key", r"SK[0-9a-f]{32}"),
    _token("sendgrid_key", "SendGrid API key", r"SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}", right=""),
    _token("mailgun_key", "Mailgun API key", r"(?:key-[a-f0-9]{32}|[a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8})"),
    _token("mailchimp_key", "Mailchimp API key", r"[a-f0-9]{32}-us[0-9]{1,2}"),
    _token("brevo_key", "Brevo API key", r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}"),
    # Work and operations
    _token("notion_token", "Notion token", r"(?:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43})"),
    _token("linear_key", "Linear API key", r"lin_(?:api|oauth)_[A-Za-z0-9]{40,}"),
    _token("figma_token", "Figma token", r"figd_[A-Za-z0-9_-]{36,}", right=""),
    _token("airtable_token", "Airtable token", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"),
    _token("postman_key", "Postman API key", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    _token("grafana_token", "Grafana token", r"(?:glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}|glc_eyJ[A-Za-z0-9+/]{32,}={0,2})", right=""),
    _token("new_relic_key", "New Relic key", r"NR(?:AK|II|RA)-[A-Za-z0-9_-]{27,32}", right=""),
    _token("dynatrace_token", "Dynatrace token", r"dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    _token("vault_token", "HashiCorp Vault token", r"hv[sbr]\.[A-Za-z0-9_-]{24,}", right=""),
    _token("terraform_token", "Terraform Cloud token", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}", right=""),
    _token("pulumi_token", "Pulumi access token", r"pul-[a-f0-9]{40}"),
    _token("doppler_token", "Doppler token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]+\.)?[A-Za-z0-9]{40,44}"),
    _token("tailscale_key", "Tailscale key", r"tskey-(?:auth|api|client|scim|webhook)-[A-Za-z0-9]{8,}-[A-Za-z0-9]{20,}"),
    _token("onepassword_token", "1Password service account token", r"ops_eyJ[A-Za-z0-9+/_-]{200,}={0,2}", right=""),
    _token("age_secret_key", "age secret key", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _token("gateway_key", "key of an agent or approver of this gateway", r"g[ka]_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", right=""),
    _token("jwt", "JSON web token", r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){0,3}", checks.jwt, right=""),
    # Found by `cutting`, which follows the block to its end; this pattern only says that there may be one.
    Format("private_key", "private key in PEM or PGP armour", r"(-----BEGIN)"),
)  # fmt: skip

NAMED = r"(?:'|\\?[\"`]|\\)?[\])]?[ \t]{0,8}(?::=|=>|[:=])[ \t]{0,8}(?:'|\\?[\"`]|\\)?"
"""From the end of a name to the value it is given: `: `, `=`, `": "`, `' => '`, also with escaped quotes."""

_GENERIC = (
    Format("url_password", "password in a URL", r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\x00-\x20\x7f\"<>`/?#:@]*:([^\x00-\x20\x7f\"<>`/?#]+)@", checks.url_password, generic=True),
    Format("bearer_token", "token of an Authorization header", r"(?i:\bbearer)[ \t]{1,4}([A-Za-z0-9._~+/-]{16,}=*)", checks.bearer, generic=True),
    Format("basic_credentials", "user and password of an Authorization header", r"(?i:\bbasic)[ \t]{1,4}([A-Za-z0-9+/]{8,}={0,2})", checks.basic_credentials, generic=True),
    Format("password", "value given to a name such as `password`", rf"(?i:passw(?:or)?d|passphrase|\bpwd|_pwd){NAMED}([^\x00-\x20\x7f\"<>`'\\,;(){{}}]+)", checks.password, generic=True),
    Format("keyed_token", "random value given to a name such as `api_key`", rf"(?i:secret|token|credentials?|(?:api|access|account|private|auth|signing|encryption|secret)[_ -]?key){NAMED}([^\x00-\x20\x7f\"<>`'\\,;(){{}}]+)", checks.keyed_token, generic=True),
    Format("password_option", "password given on a command line", r"(?:^|[\x00-\x20\x7f\"<>`])--?(?i:password|passwd|pass|token|api-?key|secret)[ \t]{1,4}([^\x00-\x20\x7f\"<>`'\\,;(){}-][^\x00-\x20\x7f\"<>`'\\,;(){}]+)", checks.password, generic=True),
)  # fmt: skip

FORMATS: tuple[Format, ...] = _DOCUMENTED + _GENERIC
