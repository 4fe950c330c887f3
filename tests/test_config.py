"""Profiles from a file: what they come to, and what is refused in which words."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from ursa.config import (
    BucketRef,
    RoleRefs,
    config_template,
    default_config_path,
    effective,
    load_config,
    typed,
    write_template,
)
from ursa.errors import ConfigError

PACKAGE = Path(typed.__file__).parent
SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ACCOUNT = "https://abc123.r2.cloudflarestorage.com"
R2 = f"""
profiles:
  r2:
    endpoint_url: {ACCOUNT}
    credentials:
      roles:
        raw_rw: {{access_key_id: "op://Eng/raw rw/id", secret_access_key: "op://Eng/raw rw/secret"}}
        assets_rw: {{access_key_id: "op://Eng/assets rw/id", secret_access_key: "op://Eng/assets rw/secret"}}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that nobody's own config is read."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def refused(tmp_path: Path, text: str, profile: str | None = None) -> ConfigError:
    """The error of loading the text, or of taking the profile from it."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        loaded = load_config(path)
        if profile:
            loaded.profile(profile)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


# --- without a file --------------------------------------------------------------------------------------------------


def test_local_works_without_a_file(home: Path) -> None:
    loaded = load_config()
    profile = loaded.profile("local")
    assert loaded.path is None
    assert loaded.profile_names() == ["local", "r2", "r2-test"]
    assert profile.kind == "local"
    assert profile.root is not None and profile.root.is_relative_to(home)
    assert (profile.raw, profile.assets) == (
        BucketRef("constellation-data", "recordings/"),
        BucketRef("constellation-assets", "ursa/"),
    )
    assert profile.endpoint_url is None and profile.source is None


@pytest.mark.parametrize("name", ["r2", "r2-test"])
def test_r2_without_a_file_says_what_is_missing_and_where(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config().profile(name)
    assert f"profiles.{name}.endpoint_url" in str(caught.value)
    assert f"profiles.{name}.credentials.roles" in str(caught.value)
    assert str(default_config_path()) in str(caught.value)
    assert "ursa config init" in (caught.value.hint or "")


def test_default_file_is_read(home: Path) -> None:
    path = default_config_path()
    path.parent.mkdir(parents=True)
    path.write_text(R2)
    assert load_config().profile("r2").source == path


def test_no_environment_variable_selects_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = written(tmp_path, "profiles: {sneaky: {root: /sneaky}}")
    for name in ("URSA_CONFIG", "URSA_CONFIG_PATH", "URSA_PROFILE", "URSA_ROOT"):
        monkeypatch.setenv(name, str(other))
    loaded = load_config()
    assert loaded.path is None
    assert "sneaky" not in loaded.profile_names()
    with pytest.raises(ConfigError):
        loaded.profile("r2")
    sources = list(PACKAGE.glob("*.py"))
    assert len(sources) > 5
    assert not [source.name for source in sources if "URSA_" in source.read_text(encoding="utf-8")]


def test_without_home(tmp_path: Path) -> None:
    program = "from ursa.config import load_config; print(load_config().profile('local').kind)"
    environ = {key: value for key, value in os.environ.items() if key != "HOME" and not key.startswith("XDG_")}
    environ["PYTHONPATH"] = str(PACKAGE.parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("local\n", 0), done.stderr


def test_account_without_any_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a uid that passwd doesn't know
    assert load_config().path is None
    with pytest.raises(ConfigError, match="absolute path"):
        load_config().profile("local")
    assert load_config(written(tmp_path, "profiles: {local: {root: data}}")).profile("local").root == tmp_path / "data"


# --- reading the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# nothing\n", "profiles:\n", "profiles:\n  r2:\n", "\ufeffprofiles: {}\n"])
def test_empty_files_are_fine(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text)).profile("local").kind == "local"


def test_missing_given_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file") as caught:
        load_config(tmp_path / "none.yaml")
    assert caught.value.path == str(tmp_path / "none.yaml")


def test_directory_as_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(tmp_path)


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "profiles: {local: {root: data}}")
    monkeypatch.chdir(tmp_path)
    profile = load_config(Path(path.name)).profile("local")
    assert (profile.source, profile.root) == (path, tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("profiles:\n  r2: [\n", "line 3, column 1"),
        ("profiles:\n\tr2: x\n", "line 2, column 1"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1"),
        ("profiles: !!python/name:os.system\n", "line 1, column 11"),
        ("profiles:\n  a: \x01\n", "line 2, column 6"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_yaml_errors_have_a_place(tmp_path: Path, text: str, where: str) -> None:
    assert where in str(refused(tmp_path, text))


def test_yaml_error_keeps_the_text_of_the_file_to_itself(tmp_path: Path) -> None:
    error = refused(tmp_path, f"profiles:\n  r2: {{credentials: {SECRET}\n")
    assert SECRET not in str(error) and error.__context__ is None and error.__cause__ is None


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"profiles:\n  x: {root: /d\xe4ta}\n")
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        load_config(path)


def test_duplicate_key(tmp_path: Path) -> None:
    error = refused(tmp_path, "profiles:\n  r2: {}\n  local: {}\n  r2: {}\n")
    assert "line 4, column 3: the key 'r2' is there twice, first on line 2" in str(error)


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = "profiles:\n  a: &a {root: /a, region: auto}\n  b: {<<: *a, root: /b}\n"
    assert load_config(written(tmp_path, text)).profile("b").root == Path("/b")


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("profile: {}", "profile", "did you mean 'profiles'?"),
        ("r2: {}", "r2", "known here: profiles"),
        ("profiles: {r2: {endpoint: x}}", "profiles.r2.endpoint", "did you mean 'endpoint_url'?"),
        ("profiles: {r2: {raw: {bukcet: x}}}", "profiles.r2.raw.bukcet", "did you mean 'bucket'?"),
        ("profiles: {r2: {credentials: {role: {}}}}", "profiles.r2.credentials.role", "did you mean 'roles'?"),
        (
            "profiles: {r2: {credentials: {roles: {raw_wr: {}}}}}",
            "profiles.r2.credentials.roles.raw_wr",
            "did you mean 'raw_rw'?",
        ),
        (
            "profiles: {r2: {credentials: {roles: {raw_rw: {acces_key: x}}}}}",
            "profiles.r2.credentials.roles.raw_rw.acces_key",
            "did you mean 'access_key_id'?",
        ),
    ],
)
def test_unknown_keys(tmp_path: Path, text: str, key: str, words: str) -> None:
    error = refused(tmp_path, text)
    assert error.key == key
    assert f"{key}: unknown key" in str(error) and words in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "the top level: found text, expected a mapping"),
        ("[1]", "the top level: found a list, expected a mapping"),
        ("profiles: []", "profiles: found a list, expected a mapping"),
        ("profiles: {r2: x}", "profiles.r2: found text, expected a mapping"),
        ("profiles: {r2: {raw: data}}", "profiles.r2.raw: found text, expected a mapping"),
        (
            "profiles: {r2: {raw: {bucket: 2024}}}",
            "profiles.r2.raw.bucket: found a number, expected text (put it in quo",
        ),
        ("profiles: {r2: {region: no}}", "profiles.r2.region: found a yes/no value, expected text (put it in quotes)"),
        ("profiles: {r2: {endpoint_url: [a]}}", "profiles.r2.endpoint_url: found a list, expected text"),
        ("profiles: {1: {}}", "profiles.1: found a number, expected text"),
        (
            "profiles: {r2: {credentials: {provider: onepassword}}}",
            "profiles.r2.credentials.provider: found 'onepassword', expected one of 1password, env, aws (did you mean",
        ),
        ("profiles: {r2: {credentials: {provider: [x]}}}", "provider: found a list, expected one of"),
    ],
)
def test_wrong_types(tmp_path: Path, text: str, words: str) -> None:
    assert words in str(refused(tmp_path, text))


def test_every_error_of_a_file_is_told(tmp_path: Path) -> None:
    error = refused(tmp_path, "profiles: {r2: {regin: x}, local: {rot: y}}")
    assert "profiles.r2.regin" in str(error) and "profiles.local.rot" in str(error)


# --- profiles --------------------------------------------------------------------------------------------------------


def test_r2_complete(tmp_path: Path) -> None:
    profile = load_config(written(tmp_path, R2)).profile("r2")
    assert (profile.name, profile.kind, profile.endpoint_url, profile.region) == ("r2", "s3", ACCOUNT, "auto")
    assert profile.raw == BucketRef("constellation-data", "recordings/")
    assert profile.credentials.provider == "1password"
    assert profile.credentials.roles["raw_rw"] == RoleRefs("op://Eng/raw rw/id", "op://Eng/raw rw/secret")
    assert profile.root is None
    hash(profile)


def test_unknown_profile_names_the_nearest_and_all(tmp_path: Path) -> None:
    error = refused(tmp_path, R2, "r2-tset")
    assert "did you mean 'r2-test'?" in str(error) and "known: local, r2, r2-test" in str(error)


def test_extends_merges_deeply(tmp_path: Path) -> None:
    text = (
        R2
        + "  bench: {extends: r2, raw: {bucket: other}, credentials: {roles: {raw_rw: {access_key_id: op://a/b/c}}}}\n"
    )
    profile = load_config(written(tmp_path, text)).profile("bench")
    assert (profile.kind, profile.endpoint_url) == ("s3", ACCOUNT)
    assert (profile.raw, profile.assets.bucket) == (BucketRef("other", "recordings/"), "constellation-assets")
    assert profile.credentials.roles["raw_rw"] == RoleRefs("op://a/b/c", "op://Eng/raw rw/secret")


def test_r2_test_that_extends_r2_keeps_the_test_buckets(tmp_path: Path) -> None:
    profile = load_config(written(tmp_path, R2 + "  r2-test: {extends: r2}\n")).profile("r2-test")
    assert (profile.raw.bucket, profile.assets.bucket) == ("constellation-data-test", "constellation-assets-test")
    assert profile.endpoint_url == ACCOUNT


def test_another_provider_does_not_inherit_references(tmp_path: Path) -> None:
    text = R2 + "  cron: {extends: r2, credentials: {provider: env}}\n"
    credentials = load_config(written(tmp_path, text)).profile("cron").credentials
    assert (credentials.provider, credentials.roles) == ("env", {})


def test_null_unsets_what_is_inherited(tmp_path: Path) -> None:
    text = R2 + "  x: {extends: r2, endpoint_url: null, raw: null}\n"
    error = refused(tmp_path, text, "x")
    assert "profiles.x.endpoint_url missing" in str(error) and "raw" not in str(error.message.partition("missing")[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("profiles: {a: {extends: b}, b: {extends: c}, c: {extends: a}}", "a → b → c → a"),
        ("profiles: {r2: {extends: r2}}", "r2 → r2"),
        ("profiles: {a: {extends: r3}}", "profiles.a.extends: there is no profile 'r3' (did you mean 'r2'?)"),
        ("profiles: {'a b': {}}", "a profile's name is letters"),
    ],
)
def test_bad_parents_and_names(tmp_path: Path, text: str, words: str) -> None:
    assert words in str(refused(tmp_path, text))


def test_what_is_local(tmp_path: Path, home: Path) -> None:
    text = """
    profiles:
      local: {root: ~/ursa-data, rig_timezone: Europe/Berlin}
      copy: {extends: local, assets: {prefix: ""}}
      usb: {root: ../usb}
    """
    loaded = load_config(written(tmp_path, text))
    local, copy, usb = (loaded.profile(name) for name in ("local", "copy", "usb"))
    assert {local.kind, copy.kind, usb.kind} == {"local"}
    assert local.root == copy.root == home / "ursa-data"
    assert usb.root == tmp_path / "../usb"
    assert usb.raw == local.raw
    assert (copy.rig_timezone, copy.assets) == ("Europe/Berlin", BucketRef("constellation-assets", ""))


@pytest.mark.parametrize(
    ("text", "profile", "words"),
    [
        ("profiles: {r2: {root: ~/x}}", "r2", "`root` is for local profiles"),
        ("profiles: {r2: {extends: local}}", "r2", "endpoint_url"),
        ("profiles: {local: {endpoint_url: http://h}}", "local", "has no endpoint"),
        ("profiles: {x: {root: a, endpoint_url: http://h}}", "x", "`root` is for local profiles"),
        ("profiles: {local: {root: ' '}}", "local", "profiles.local.root: not a path"),
        ("profiles: {local: {root: ~nobody-of-that-name/x}}", "local", "no home directory"),
        ("profiles: {x: {}}", "x", "profiles.x.raw.bucket, profiles.x.assets.bucket, profiles.x.credentials.roles"),
    ],
)
def test_contradictions_and_gaps(tmp_path: Path, text: str, profile: str, words: str) -> None:
    assert words in str(refused(tmp_path, text, profile))


def test_an_unfinished_r2_does_not_stop_local(tmp_path: Path) -> None:
    loaded = load_config(written(tmp_path, "profiles: {r2: {endpoint_url: 'https://<account id>.example'}}"))
    assert loaded.profile("local").kind == "local"


def test_half_a_role_is_missing_its_other_half(tmp_path: Path) -> None:
    text = f"profiles: {{r2: {{endpoint_url: '{ACCOUNT}', credentials: {{roles: {{raw_ro: {{access_key_id: op://a/b/c}}}}}}}}}}"
    error = refused(tmp_path, text, "r2")
    assert error.key == "profiles.r2.credentials.roles.raw_ro.secret_access_key"


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "abc.r2.cloudflarestorage.com",
        "https://",
        "http://h:99999",
        "http://[::1",
        "https://a b",
        "file:///x",
    ],
)
def test_endpoint_must_be_a_url(tmp_path: Path, url: str) -> None:
    assert "not an http:// or https:// URL" in str(refused(tmp_path, R2.replace(ACCOUNT, f"'{url}'"), "r2"))


def test_endpoint_with_credentials_is_refused_unseen(tmp_path: Path) -> None:
    error = refused(tmp_path, R2.replace(ACCOUNT, f"https://key:{SECRET}@host"), "r2")
    assert "credentials never stand in this file" in str(error)
    assert SECRET not in f"{error} {error.hint} {error.fields}"


@pytest.mark.parametrize("tail", ["/constellation-data", "?x=1", "#f"])
def test_endpoint_with_a_tail_is_refused(tmp_path: Path, tail: str) -> None:
    refused(tmp_path, R2.replace(ACCOUNT, f"'{ACCOUNT}{tail}'"), "r2")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8333", "https://[::1]:9000/", "https://host/storage/v1/s3"])
def test_good_endpoints(tmp_path: Path, url: str) -> None:
    profile = load_config(written(tmp_path, R2.replace(ACCOUNT, f"'{url}'"))).profile("r2")
    assert profile.endpoint_url == url.rstrip("/")


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires", "+10:00", "-05:30", "+14:00"]
)
def test_good_time_zones(tmp_path: Path, zone: str) -> None:
    assert (
        load_config(written(tmp_path, f"profiles: {{local: {{rig_timezone: {zone}}}}}")).profile("local").rig_timezone
        == zone
    )


@pytest.mark.parametrize(
    "zone", ["Europe/Berln", "+25:00", "+10:60", "+1:00", "''", "../x", "/etc/localtime", "Europe", "a\\0b"]
)
def test_bad_time_zones(tmp_path: Path, zone: str) -> None:
    zone = f'"{zone}"' if "\\" in zone else zone
    error = refused(tmp_path, f"profiles: {{local: {{rig_timezone: {zone}}}}}", "local")
    assert error.key == "profiles.local.rig_timezone" and "is no time zone" in str(error)
    assert ("did you mean 'Europe/Berlin'?" in str(error)) == (zone == "Europe/Berln")


@pytest.mark.parametrize("bucket", ["ab", "Data", "a_b", "a..b", "-ab", "a/b", "x" * 64, ""])
def test_bad_buckets(bucket: str) -> None:
    with pytest.raises(ConfigError, match="no bucket name"):
        BucketRef(bucket, "")


@pytest.mark.parametrize("prefix", ["/a", "a//b", "../a", "a/./b", "a\\b", "a\nb", "/"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(ConfigError, match="no key prefix"):
        BucketRef("data", prefix)


def test_prefix_ends_in_a_slash_or_is_empty() -> None:
    assert [BucketRef("data", prefix).prefix for prefix in ("", "a", "a/b/")] == ["", "a/", "a/b/"]


def test_bad_bucket_has_file_and_key(tmp_path: Path) -> None:
    error = refused(tmp_path, R2 + "  x: {extends: r2, raw: {bucket: No}}\n  y: {extends: x}\n", "y")
    assert error.key == "profiles.x.raw.bucket"  # where it is typed


@pytest.mark.parametrize(
    ("typed", "bytes_", "seconds"),
    [
        ("", 200_000_000_000, 1_209_600.0),
        ("reread: 1.5T, reread_after: 36h", 1_500_000_000_000, 129_600.0),
        ("reread: 2GiB, reread_after: 2w", 2 << 30, 1_209_600.0),
        ("reread: 10 MB, reread_after: 90s", 10_000_000, 90.0),
        ("reread: '0', reread_after: 0d", 0, 0.0),
    ],
)
def test_what_is_read_again(tmp_path: Path, typed: str, bytes_: int, seconds: float) -> None:
    profile = load_config(written(tmp_path, f"profiles: {{local: {{{typed}}}}}")).profile("local")
    assert (profile.reread_bytes, profile.reread_after_s) == (bytes_, seconds)
    assert (effective(profile)["reread_bytes"], effective(profile)["reread_after_s"]) == (bytes_, seconds)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("reread", "'-1G'", "is not a valid size"),
        ("reread", "much", "is not a valid size"),
        ("reread", "5iB", "is not a valid size"),
        ("reread", "''", "is not a valid size"),
        ("reread", "200", "found a number, expected text (put it in quotes)"),
        ("reread_after", "'14'", "is not a valid duration"),
        ("reread_after", "14D", "is not a valid duration"),
        ("reread_after", "inf", "is not a valid duration"),
        ("cache_dir", "' '", "not a path"),
    ],
)
def test_wrong_sizes_durations_and_directories(tmp_path: Path, key: str, value: str, words: str) -> None:
    error = refused(tmp_path, f"profiles: {{local: {{{key}: {value}}}}}", "local")
    assert error.key == f"profiles.local.{key}" and words in str(error)


@pytest.mark.parametrize(
    ("given", "expected"), [("cache", "cache"), ("~/cache", "home/cache"), ("/var/ursa", "/var/ursa")]
)
def test_cache_dir(tmp_path: Path, given: str, expected: str) -> None:
    text = f"profiles: {{local: {{cache_dir: {given}}}, other: {{extends: local}}}}"
    for name in ("local", "other"):
        profile = load_config(written(tmp_path, text)).profile(name)
        assert profile.cache_dir == tmp_path / expected
        assert effective(profile)["cache_dir"] == str(tmp_path / expected)


# --- references, never secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["1password", "env", "aws"])
@pytest.mark.parametrize("value", [SECRET, SECRET[:32], "AKIAIOSFODNN7EXAMPLE", "wJalr/K7MDENG+bPxRfiCYEXAMPLEKEY"])
def test_literal_secrets_are_refused_unseen_in_any_profile(tmp_path: Path, provider: str, value: str) -> None:
    text = (
        f"profiles: {{x: {{credentials: {{provider: {provider}, roles: {{raw_rw: {{secret_access_key: {value}}}}}}}}}}}"
    )
    error = refused(tmp_path, text)
    assert error.key == "profiles.x.credentials.roles.raw_rw.secret_access_key"
    assert value not in f"{error!r} {error} {error.hint} {error.fields}"
    assert error.__cause__ is None


@pytest.mark.parametrize("value", ["op://", "op://a/b", "op://a//c", "op://…", "OP://a/b/c"])
def test_incomplete_references(tmp_path: Path, value: str) -> None:
    text = f"profiles: {{x: {{credentials: {{roles: {{raw_rw: {{access_key_id: '{value}'}}}}}}}}}}"
    assert "op://vault/item/field" in str(refused(tmp_path, text))


@pytest.mark.parametrize("value", ["RAW_KEY", "$RAW_KEY", "${RAW_KEY}"])
def test_env_names_are_normalised(tmp_path: Path, value: str) -> None:
    text = f"""
    profiles:
      x:
        endpoint_url: http://h
        raw: {{bucket: raw}}
        assets: {{bucket: assets, prefix: a}}
        credentials:
          provider: env
          roles: {{raw_rw: {{access_key_id: "{value}", secret_access_key: "{value}", session_token: "{value}"}}}}
    """
    profile = load_config(written(tmp_path, text)).profile("x")
    assert profile.credentials.roles["raw_rw"] == RoleRefs("RAW_KEY", "RAW_KEY", "RAW_KEY")
    assert profile.assets.prefix == "a/"


@pytest.mark.parametrize("value", ["${RAW_KEY", "RAW KEY", "1KEY", "$", "RAW-KEY"])
def test_no_env_names(tmp_path: Path, value: str) -> None:
    text = f"profiles: {{x: {{credentials: {{provider: env, roles: {{raw_rw: {{access_key_id: '{value}'}}}}}}}}}}"
    assert "name of an environment variable" in str(refused(tmp_path, text))


def test_aws_profile_belongs_to_aws(tmp_path: Path) -> None:
    text = (
        R2
        + "  x: {extends: r2, credentials: {aws_profile: lab}}\n"
        + "  y: {extends: r2, credentials: {provider: aws, aws_profile: lab}}\n"
    )
    assert load_config(written(tmp_path, text)).profile("y").credentials.aws_profile == "lab"
    assert "only the provider 'aws'" in str(refused(tmp_path, text, "x"))


# --- show and init ---------------------------------------------------------------------------------------------------


def test_effective_has_everything_as_used(tmp_path: Path) -> None:
    path = written(tmp_path, R2)
    raw_rw = {
        "role": "raw_rw",
        "access_key_id": "op://Eng/raw rw/id",
        "secret_access_key": "op://Eng/raw rw/secret",
        "session_token": None,
    }
    shown = effective(load_config(path).profile("r2"))
    assert shown["credentials"]["roles"]["raw_rw"] == shown["credentials"]["roles"]["raw_ro"] == raw_rw
    assert shown | {"credentials": None} == {
        "profile": "r2",
        "source": str(path),
        "kind": "s3",
        "root": None,
        "endpoint_url": ACCOUNT,
        "region": "auto",
        "raw": {"bucket": "constellation-data", "prefix": "recordings/"},
        "assets": {"bucket": "constellation-assets", "prefix": "ursa/"},
        "credentials": None,
        "rig_timezone": None,
        "cache_dir": None,
        "ca_bundle": None,
        "reread_bytes": 200_000_000_000,
        "reread_after_s": 1_209_600.0,
    }


def test_effective_env_shows_names_not_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    text = (
        R2 + "  cron: {extends: r2, credentials: {provider: env}}\n  aws: {extends: r2, credentials: {provider: aws}}\n"
    )
    loaded = load_config(written(tmp_path, text))
    shown = effective(loaded.profile("cron"))
    assert shown["credentials"]["roles"]["assets_ro"]["secret_access_key"] == "AWS_SECRET_ACCESS_KEY"
    assert SECRET not in str(shown)
    assert effective(loaded.profile("aws"))["credentials"] == {"provider": "aws", "aws_profile": None}
    assert effective(loaded.profile("local"))["credentials"] is None


def test_template_names_every_key_and_asks_to_be_filled_in(tmp_path: Path) -> None:
    path = written(tmp_path, config_template())
    loaded = load_config(path)
    assert loaded.profile_names() == ["local", "r2", "r2-test"]
    assert loaded.profile("local").kind == "local"
    for name in ("r2", "r2-test"):
        error = refused(tmp_path, config_template(), name)
        assert "profiles.r2.endpoint_url" in str(error) and "Fill them in" in (error.hint or "")
    sections = (
        typed.ProfileSection,
        typed.CredentialsSection,
        typed.RolesSection,
        typed.RoleSection,
        typed.BucketSection,
    )
    for key in (key for section in sections for key in section.model_fields):
        assert re.search(rf"\b{key}\b", config_template()), key


def test_template_filled_in_works(tmp_path: Path) -> None:
    filled = re.sub(r"<[^<>]+>", "abc", config_template())
    loaded = load_config(written(tmp_path, filled))
    assert loaded.profile("r2").endpoint_url == "https://abc.r2.cloudflarestorage.com"
    assert loaded.profile("r2-test").raw.bucket == "constellation-data-test"


def test_the_commented_parts_of_the_template_work_too(tmp_path: Path) -> None:
    filled = re.sub(r"<[^<>]+>", "abc", config_template())
    examples = re.sub(r"^  # (?=(?:cron|other):| )", "  ", filled, flags=re.MULTILINE)
    loaded = load_config(written(tmp_path, examples))
    assert loaded.profile("cron").credentials.roles["raw_rw"] == RoleRefs("RAW_KEY_ID", "RAW_SECRET")
    assert loaded.profile("other").credentials.aws_profile == "lab"


def test_write_template(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dir" / "config.yaml"
    write_template(path)
    assert path.read_text(encoding="utf-8") == config_template()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert yaml.safe_load(config_template())["profiles"]["r2"]


def test_write_template_overwrites_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "mine: 1\n")
    dangling = tmp_path / "link.yaml"
    dangling.symlink_to(tmp_path / "elsewhere.yaml")
    for there in (path, dangling):
        with pytest.raises(ConfigError, match="there already"):
            write_template(there)
    assert path.read_text() == "mine: 1\n"
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_write_template_on_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "config.yaml"
    write_template(path)
    with pytest.raises(ConfigError, match="there already"):
        write_template(path)
    assert list(tmp_path.glob("*config*")) == [path]


def test_write_template_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        write_template(tmp_path / "file" / "config.yaml")
