//! A file means what it says, and says everything that is wrong with it at once.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tidegate::admission::settings::{Admission, Client, ClientKey, OnLimit};
use tidegate::breaker::settings::Breaker;
use tidegate::cache::settings::Cache;
use tidegate::commands::check;
use tidegate::config::{LoadError, Mistakes, Overrides, Settings, Telemetry};
use tidegate::limits::settings::{Limits, Scope};
use tidegate::proxy::settings::Server;
use tidegate::tasks::settings::Tasks;
use tidegate::units::{Priority, Secret};
use tidegate::upstream::settings::{Holdback, HttpVersion, Kind, Recovery, Retry, Upstream};

fn environment(name: &str) -> Option<String> {
    match name {
        "KEY" => Some("sk-from-environment\n".to_owned()),
        "RPM" => Some("7".to_owned()),
        "ADDR" => Some("nonsense-from-environment".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Settings {
    Settings::parse(text, &environment).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> Mistakes {
    Settings::parse(text, &environment).unwrap_err()
}

/// The only mistake of a file, as printed.
fn mistake(text: &str) -> String {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.all().len(), 1, "{mistakes}");
    mistakes.to_string()
}

fn upstream(lines: &str) -> String {
    format!("[[upstreams]]\nbase_url = \"https://host\"\n{lines}\n")
}

fn limits(lines: &str) -> String {
    upstream(&format!("[upstreams.limits]\n{lines}"))
}

fn file(name: &str) -> Settings {
    Settings::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).expect("ships with the project")
}

#[test]
fn full_toml_shows_the_defaults_of_everything_but_its_upstream() {
    assert_eq!(file("full.toml").to_toml(), file("minimal.toml").to_toml());
}

#[test]
fn what_is_not_written_has_its_default() {
    let settings = file("minimal.toml");
    assert_eq!(settings.server, Server::default());
    assert_eq!(settings.admission, Admission::default());
    assert_eq!(settings.clients, []);
    assert_eq!(settings.retry, Retry::default());
    assert_eq!(settings.breaker, Breaker::default());
    assert_eq!(settings.recovery, Recovery::default());
    assert_eq!(settings.cache, Cache::default());
    assert_eq!(settings.tasks, Tasks::default());
    assert_eq!(settings.telemetry, Telemetry::default());

    let base_url = "https://integrate.api.nvidia.com".parse().unwrap();
    let mut upstream = Upstream::new("default".to_owned(), base_url);
    upstream.limits =
        Limits { requests_per_minute: NonZeroU32::new(40), concurrency: NonZeroU32::new(5), ..Limits::default() };
    assert_eq!(settings.upstreams, [upstream]);
}

#[test]
fn printed_settings_read_back_as_themselves() {
    let settings = parse(
        r#"
        [server]
        state_dir = "a$${b"
        tls = { cert = "c", key = "k" }
        [[upstreams]]
        name = "a"
        base_url = "http://[::1]:1/x"
        api_keys = ["one", "two"]
        exempt = ["GET /v1/models"]
        limits = { requests_per_minute = 9, concurrency = 4, concurrency_reserved = { high = 1 }, window = "1500ms" }
        [[upstreams]]
        name = "b"
        base_url = "http://b"
        [admission]
        keepalive_after = "off"
        [[clients]]
        name = "x"
        key = "k1"
        [[clients]]
        name = "y"
        key = "k2"
        class = "high"
        [recovery]
        holdback = "16 tokens"
        "#,
    );
    let printed = settings.to_toml();
    assert_eq!(parse(&printed).to_toml(), printed);
    assert!(printed.contains("state_dir = \"a$${b\""), "{printed}");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let found = mistakes(
        r#"[server]
listen = "localhost"
lisen = "127.0.0.1:1"
idle_timeout = 75

[[upstreams]]
name = "nvidia"
base_url = "https://user:hunter2@host/v1"
refusal_statuses = [429, "x", 99999]
[upstreams.limits]
requests_per_minute = 0
burst = 3
window = "25h"

[[upstreams]]
bas_url = "x"

[admission]
floors = { normal = 0.7, low = 0.6 }

[nonsense]
a = 1
"#,
    );
    let expected = [
        (2, "server.listen = \"localhost\": expected an IP address and a port; write it like \"127.0.0.1:8080\""),
        (3, "server.lisen: unknown setting; did you mean listen?"),
        (4, "server.idle_timeout = 75: expected a duration"),
        (8, "upstreams.nvidia.base_url = \"https://[redacted]@host/v1\": must not contain a user or password"),
        (9, "upstreams.nvidia.refusal_statuses[1] = \"x\": expected a whole number"),
        (9, "upstreams.nvidia.refusal_statuses[2] = 99999: must be at most 65535"),
        (11, "upstreams.nvidia.limits.requests_per_minute = 0: must be at least 1; write a larger number or remove"),
        (13, "upstreams.nvidia.limits.window = \"25h\": must be from \"1s\" to \"1d\""),
        (15, "upstreams[1].base_url: is missing; add base_url"),
        (15, "upstreams[1].name: is missing; add one"),
        (16, "upstreams[1].bas_url: unknown setting; did you mean base_url?"),
        (19, "admission.floors = {…}: must add up to less than 1"),
        (21, "nonsense: unknown setting; remove it; the file may have server, upstreams"),
    ];
    let all: Vec<_> = found.all().iter().map(|mistake| (mistake.line.unwrap(), mistake.to_string())).collect();
    assert_eq!(all.len(), expected.len(), "{found}");
    for ((line, text), (expected_line, beginning)) in all.iter().zip(expected) {
        assert_eq!(*line, expected_line, "{text}");
        assert!(text.starts_with(beginning), "{text}\n{beginning}");
    }
}

#[test]
fn a_file_that_is_no_toml_names_the_lines_without_showing_them() {
    let found = mistakes("[server]\nlisten = sk-secret\n\n[[upstreams]]\nwindow = 60s\n").to_string();
    assert!(found.contains("line 2: the file: is not TOML here"), "{found}");
    assert!(found.contains("line 5: the file: is not TOML here"), "{found}");
    assert!(!found.contains("sk-secret"), "{found}");
}

#[test]
fn variables_are_filled_in_anywhere() {
    let settings = parse(&upstream(
        "api_key = \"${KEY}\"\nlimits = { requests_per_minute = \"${RPM}\", window = \"${NONE:-30s}\" }",
    ));
    let upstream = &settings.upstreams[0];
    assert_eq!(upstream.api_keys, [Secret::new("sk-from-environment".to_owned())]);
    assert_eq!(upstream.limits.requests_per_minute, NonZeroU32::new(7));
    assert_eq!(upstream.limits.window, Duration::from_secs(30));
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    let found = mistake(&upstream("api_key = \"${NOT_SET}\""));
    assert_eq!(
        found,
        "line 3: upstreams[0].api_key = [redacted]: the environment variable NOT_SET is not set; \
         set it, or write ${NAME:-default} if there is a default"
    );
}

#[test]
fn what_a_variable_holds_is_not_shown_in_mistakes() {
    let found = mistake(&format!("[server]\nlisten = \"${{ADDR}}\"\n{}", upstream("")));
    assert!(found.starts_with("line 2: server.listen = \"${ADDR}\": expected"), "{found}");
}

#[test]
fn a_setting_in_the_wrong_table_is_sent_to_the_right_one() {
    let found = mistake(&upstream("requests_per_minute = 40"));
    assert!(found.ends_with("unknown setting; did you mean requests_per_minute in [upstreams.limits]?"), "{found}");
    let found = mistake(&limits("rpm = 40"));
    assert!(found.ends_with("did you mean requests_per_minute?"), "{found}");
}

#[test]
fn the_default_burst_yields_to_a_small_limit_and_a_written_one_does_not() {
    let settings = parse(&limits("requests_per_minute = 3"));
    assert_eq!(settings.upstreams[0].limits.burst.get(), 3);
    let found = mistake(&limits("requests_per_minute = 3\nburst = 4"));
    assert!(found.contains("burst = 4: must not be more than requests_per_minute (3)"), "{found}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (text, expected) in [
        (limits("concurrency = 2\nconcurrency_reserved = { high = 2 }"), "reserves 2 of 2 slots"),
        (limits("concurrency_reserved = { high = 1 }"), "reserves 1 of 0 slots"),
        (limits("requests_per_minute = 1\nwindow = \"1s\"\nwindow_margin = \"1s\""), "must be shorter than window"),
        (upstream("api_key = \"a\"\napi_keys = [\"b\"]"), "api_key: cannot stand beside api_keys"),
        (upstream("api_keys = [\"a\", \"a\"]"), "api_keys: has a key twice"),
        (upstream("models = []"), "is empty"),
        (upstream("retry_statuses = [200]"), "from 400 to 599"),
        (upstream("name = \"a b\""), "must be 1 to 64 letters"),
        (upstream("[server]\nadmin_listen = \"0.0.0.0:9091\""), "would let anybody operate the proxy"),
        (upstream("[server]\nlisten = \"127.0.0.1:9091\""), "must not be the address of listen"),
        (upstream("[server]\nbody_max = \"1GiB\""), "must not be more than memory_max"),
        (upstream("[server]\ntls = { cert = \"a\" }"), "server.tls.key: is missing"),
        (upstream("[retry]\nbase = \"1m\""), "must not be more than cap"),
        (upstream("[breaker]\nopen = \"2m\""), "must not be more than open_max"),
        (upstream("[recovery]\ncooldown = \"2m\""), "must not be more than cooldown_max"),
        (upstream("[cache]\nroutes = [\"v1/x\"]"), "expected paths"),
        (upstream("[cache]\nvary_headers = [\"a b\"]"), "expected names of headers"),
        (upstream("[telemetry]\nlog = \"info,=,\""), "expected a log filter"),
        (upstream("[telemetry]\notlp = \"collector:4318\""), "must begin with http://"),
        (upstream("[admission]\nkeepalive_after = \"10ms\""), "or \"off\""),
        (upstream("[server]\nheader_timeout = \"0s\""), "must be from \"1ms\" to \"1d\""),
        (format!("{0}name = \"a\"\n{0}name = \"a\"", upstream("")), "another upstream is called a"),
        ("[[upstreams]]\nname = \"a\"".to_owned(), "upstreams.a.base_url: is missing"),
        (String::new(), "upstreams: is missing; add [[upstreams]]"),
        ("upstreams = 1".to_owned(), "expected a list of tables"),
        ("upstreams = [1]".to_owned(), "expected a list of tables"),
        (format!("clients = [\"sk-1\"]\n{}", upstream("")), "line 1: clients: expected a list of tables"),
        (format!("server = 1\n{}", upstream("")), "server: expected a table; write [server]"),
        (upstream("models = \"*\""), "models = \"*\": expected a list; put it in brackets"),
    ] {
        let found = mistake(&text);
        assert!(found.contains(expected), "{text}\n{found}\n{expected}");
    }
}

#[test]
fn clients_are_told_apart_by_name_and_key() {
    let hash = "64439d5c6119aad31dcb1c5a14c05bb46c0311eaf916f2d34359f304999c9157";
    let text = |first: &str, second: &str| upstream(&format!("[[clients]]\n{first}\n[[clients]]\n{second}"));
    let chat = "name = \"chat\"\nkey = \"${KEY}\"\nclass = \"high\"\non_limit = \"refuse\"";
    let settings = parse(&text(chat, &format!("name = \"b\"\nkey_blake3 = \"{hash}\"\nclass_max = \"high\"")));
    let key = ClientKey::Plain(Secret::new("sk-from-environment".to_owned()));
    let class = Priority::High;
    let expected = Client { class, class_max: class, on_limit: OnLimit::Refuse, ..Client::new("chat".to_owned(), key) };
    assert_eq!(settings.clients[0], expected);
    assert!(matches!(settings.clients[1].key, ClientKey::Blake3([0x64, .., 0x57])));
    assert_eq!((settings.clients[1].class, settings.clients[1].class_max), (Priority::Normal, Priority::High));

    for (second, expected) in [
        ("name = \"chat\"\nkey = \"other\"", "another client is called chat"),
        ("name = \"b\"\nkey = \"${KEY}\"", "clients.b.key: is another client's too"),
        (
            &format!("name = \"b\"\nkey_blake3 = \"{}\"", blake3::hash(b"sk-from-environment").to_hex()),
            "is another client's too",
        ),
        ("name = \"b\"", "clients.b.key: is missing"),
        ("key = \"other\"", "clients[1].name: is missing"),
        ("name = \"b\"\nkey = \"o\"\nclass = \"high\"\nclass_max = \"low\"", "must not be above class_max (low)"),
        (
            "name = \"b\"\nkey_blake3 = \"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"",
            "is the hash of an empty key",
        ),
        ("name = \"b\"\nkey_blake3 = \"abc\"", "expected a blake3 hash of 64 hex digits"),
    ] {
        let found = mistake(&text(chat, second));
        assert!(found.contains(expected), "{second}\n{found}");
    }
}

#[test]
fn secrets_appear_neither_in_debug_nor_in_printed_settings_nor_in_mistakes() {
    let secrets = r#"
        [server]
        admin_token = "hunter2-admin"
        [[upstreams]]
        base_url = "https://host"
        api_keys = ["hunter2-one", "hunter2-two"]
        [[clients]]
        name = "a"
        key = "hunter2-client"
    "#;
    let settings = parse(secrets);
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(!settings.to_toml().contains("hunter2"));
    let wrong = secrets
        .replace("hunter2-admin", "hunter2 admin")
        .replace("hunter2-two\"", "hunter2-one\", \"hunter2 \t\"")
        .replace("key = \"hunter2-client\"", "ky = \"hunter2-client\"");
    let found = mistakes(&wrong);
    assert!(!format!("{found}{found:?}").contains("hunter2"), "{found}");
    assert_eq!(found.all().len(), 4, "{found}");
}

#[test]
fn flags_alone_make_complete_settings() {
    let flags = Overrides {
        upstream: Some("https://host".to_owned()),
        rpm: NonZeroU32::new(40),
        concurrency: NonZeroU32::new(5),
        window: Some(Duration::from_secs(30)),
        api_key_env: Some("KEY".to_owned()),
        listen: Some("127.0.0.1:1".parse().unwrap()),
        admin_listen: Some("127.0.0.1:2".parse().unwrap()),
        state_dir: Some("elsewhere".into()),
    };
    let settings = Settings::from_flags(&flags, &environment).unwrap();
    let upstream = &settings.upstreams[0];
    assert_eq!((upstream.name.as_str(), upstream.base_url.to_string().as_str()), ("default", "https://host/v1"));
    assert_eq!(upstream.limits.requests_per_minute, flags.rpm);
    assert_eq!(upstream.limits.concurrency, flags.concurrency);
    assert_eq!(upstream.limits.window, Duration::from_secs(30));
    assert_eq!(upstream.api_keys[0].expose(), "sk-from-environment");
    assert_eq!(settings.server.listen.port(), 1);
    assert_eq!(settings.server.admin_listen.port(), 2);
    assert_eq!(settings.server.state_dir, Path::new("elsewhere"));
    let notices: Vec<_> = settings.not_yet().iter().map(|notice| notice.field.as_str()).collect();
    assert_eq!(notices, [""; 0]);
}

#[test]
fn mistakes_in_flags_name_the_flag() {
    let flags = Overrides {
        upstream: Some("host".to_owned()),
        api_key_env: Some("NOT_SET".to_owned()),
        ..Overrides::default()
    };
    let found = Settings::from_flags(&flags, &environment).unwrap_err().to_string();
    assert!(found.contains("command line: --upstream = \"host\": must begin with http://"), "{found}");
    assert!(found.contains("command line: --api-key-env = [redacted]: the environment variable NOT_SET"), "{found}");
    let found = Settings::from_flags(&Overrides::default(), &environment).unwrap_err().to_string();
    assert!(found.contains("pass --upstream URL"), "{found}");
}

#[test]
fn a_flag_overrides_the_only_upstream_of_a_file() {
    let flags = Overrides { rpm: NonZeroU32::new(40), api_key_env: Some("KEY".to_owned()), ..Overrides::default() };
    let text = upstream("name = \"a\"\napi_keys = [\"x\", \"y\"]\nlimits = { requests_per_minute = 3 }");
    let settings = Settings::parse_with(&text, &environment, &flags).unwrap();
    let only = &settings.upstreams[0];
    assert_eq!((only.name.as_str(), only.api_keys.len()), ("a", 1));
    assert_eq!((only.limits.requests_per_minute, only.limits.burst.get()), (flags.rpm, 5));

    let found = Settings::parse_with(&format!("{text}{}name = \"b\"", upstream("")), &environment, &flags);
    let found = found.unwrap_err();
    assert_eq!(found.all().len(), 2, "{found}");
    assert!(found.to_string().contains("command line: --rpm: the file has 2 upstreams"), "{found}");
}

#[test]
fn only_what_was_written_and_is_not_built_gets_a_notice() {
    assert_eq!(file("minimal.toml").not_yet(), []);
    let settings = parse(&upstream(
        "name = \"n\"\nhttp = \"1.1\"\nkind = \"agent\"\nlimits = { scope = \"upstream\" }\n[retry]\nbudget = 1\n\
         [cache]\nttl = \"1h\"\nshared = true\n[tasks]\nenabled = false\n[telemetry]\notlp = \"http://h\"",
    ));
    let notices: Vec<_> =
        settings.not_yet().iter().map(|notice| (notice.line.unwrap(), notice.field.as_str())).collect();
    assert_eq!(notices, [(10, "cache"), (15, "telemetry.otlp")]);
    let cache = "cache has not all of its effect yet; still to be built: the cache";
    assert_eq!(settings.not_yet()[0].to_string(), cache);
}

#[test]
fn clients_have_all_of_their_effect() {
    let text = "[admission]\ntrust_client_header = true\n[[clients]]\nname = \"chat\"\nkey = \"k\"\nclass = \"low\"\n\
                class_max = \"high\"\nweight = 1\non_limit = \"wait\"\n[[clients]]\nname = \"b\"\nkey = \"l\"\nweight = 2";
    let settings = parse(&upstream(text));
    let notices: Vec<_> = settings.not_yet().iter().map(|notice| notice.field.as_str()).collect();
    assert_eq!(notices, [""; 0]);
}

#[test]
fn json_says_what_the_printed_file_says() {
    let settings = parse(&upstream("api_key = \"sk-1\"\n[[clients]]\nname = \"chat\"\nkey = \"tg-1\""));
    let json: serde_json::Value = serde_json::from_str(&settings.to_json()).unwrap();
    let toml: serde_json::Value = serde_json::to_value(settings.to_toml().parse::<toml::Table>().unwrap()).unwrap();
    assert_eq!(json, toml);
    assert_eq!(json["clients"][0]["key"], "[redacted]");
    assert!(!settings.to_json().contains("tg-1") && !settings.to_json().contains("sk-1"));
}

#[test]
fn a_placeholder_of_printed_settings_is_noticed() {
    let settings = parse(&upstream("api_key = \"[redacted]\""));
    assert_eq!(settings.not_yet()[0].line, Some(3));
    assert!(settings.not_yet()[0].message.contains("placeholder"));
}

#[test]
fn what_cannot_change_while_running_is_named() {
    let old = parse(&upstream(""));
    let new = parse(&upstream(
        "[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\nstate_dir = \"x\"\nthreads = 1\n\
         admin_token = \"t\"\ntls = { cert = \"a\", key = \"b\" }\nbody_max = 1024",
    ));
    assert_eq!(old.frozen_differences(&old), [""; 0]);
    let frozen = ["listen", "admin_listen", "admin_token", "tls", "state_dir", "threads"];
    assert_eq!(old.frozen_differences(&new), frozen.map(|name| format!("server.{name}")));
    let in_force = new.frozen_as(&old);
    assert_eq!(old.frozen_differences(&in_force), [""; 0]);
    assert_eq!(in_force.server.body_max, 1024);
}

#[test]
fn choices_are_named_as_in_the_documentation() {
    let settings = parse(&upstream(
        "kind = \"agent\"\nhttp = \"2\"\nlimits = { scope = \"upstream\" }\n[recovery]\nholdback = \"250ms\"",
    ));
    let only = &settings.upstreams[0];
    assert_eq!((only.kind, only.http, only.limits.scope), (Kind::Agent, HttpVersion::Http2, Scope::Upstream));
    assert_eq!(settings.recovery.holdback, Holdback::Time(Duration::from_millis(250)));
    let found = mistake(&upstream("http = \"3\""));
    assert!(found.contains("expected one of auto, 1.1, 2; write it like \"auto\""), "{found}");
}

fn checked(text: &str) -> (ExitCode, String, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = check::Args { config: file.path().to_owned() };
    let code = check::run(&args, &mut out, &mut err);
    let name = file.path().display().to_string();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap().replace(&name, "FILE"))
}

#[test]
fn check_prints_a_file_that_means_the_same() {
    let (code, out, err) = checked(&upstream("api_key = \"hunter2\"\n[tasks]\nkeep = \"3d\""));
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(parse(&out).to_toml(), out);
    assert!(out.contains("api_keys = [\"[redacted]\"]") && !out.contains("hunter2"), "{out}");
    assert_eq!(err, "FILE:5: tasks has not all of its effect yet; still to be built: tasks\n");
}

#[test]
fn check_prints_every_mistake_on_a_line_of_its_own() {
    let (code, out, err) = checked("[server]\nbody_max = \"x\"\nthreads = 0");
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    assert!(lines[0].starts_with("FILE:1: upstreams: is missing;"), "{err}");
    assert!(lines[1].starts_with("FILE:2: server.body_max = \"x\": expected a size;"), "{err}");
    assert!(lines[2].starts_with("FILE:3: server.threads = 0: must be at least 1;"), "{err}");
}

#[test]
fn check_helps_with_an_example() {
    use clap::{Args, Command};
    let help = check::Args::augment_args(Command::new("check")).render_help().to_string();
    assert!(help.contains("tidegate check --config config/full.toml"), "{help}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Settings::load(Path::new("no/such/file.toml")).unwrap_err();
    assert!(matches!(error, LoadError::Unreadable { .. }));
    assert!(error.to_string().starts_with("no/such/file.toml: "), "{error}");
}
