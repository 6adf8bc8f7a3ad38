use super::*;

const CHAT: &str = "tg-chat-key";
const BATCH: &str = "tg-batch-key";

fn two_clients(trusts_header: bool) -> Clients {
    let plain = ClientKey::Plain(Secret::new(CHAT.to_owned()));
    let mut chat = Client::new("chat".to_owned(), plain);
    (chat.class, chat.class_max) = (Priority::Normal, Priority::High);
    let hashed = ClientKey::Blake3(*blake3::hash(BATCH.as_bytes()).as_bytes());
    let mut batch = Client::new("batch".to_owned(), hashed);
    (batch.class, batch.class_max) = (Priority::Low, Priority::Low);
    Clients::new(&[chat, batch], trusts_header)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(field) {
        headers.append::<HeaderName>(name, value);
    }
    headers
}

/// Who it is, and what is left of the fields.
fn identified(clients: &Clients, pairs: &[(&'static str, &str)]) -> (Result<Caller, Stranger>, Vec<(String, String)>) {
    let mut headers = headers(pairs);
    let caller = clients.identify(&mut headers);
    let text = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    (caller, headers.iter().map(text).collect())
}

fn name(clients: &Clients, pairs: &[(&'static str, &str)]) -> String {
    identified(clients, pairs).0.unwrap().client.to_string()
}

#[test]
fn key_is_known_wherever_clients_put_it_and_ends_here() {
    let clients = two_clients(false);
    let offered = format!("openai-insecure-api-key.{CHAT}");
    for (field, value) in [
        ("authorization", format!("Bearer {CHAT}")),
        ("authorization", format!("bearer   {CHAT} ")),
        ("authorization", CHAT.to_owned()),
        ("x-api-key", CHAT.to_owned()),
        ("api-key", CHAT.to_owned()),
        ("sec-websocket-protocol", offered),
    ] {
        let (caller, left) = identified(&clients, &[(field, &value)]);
        let caller = caller.unwrap();
        assert_eq!(caller.client.to_string(), "chat", "{field}: {value}");
        assert_eq!((caller.class, caller.class_max), (Priority::Normal, Priority::High));
        assert_eq!(caller.key, KeyId::PASS_THROUGH);
        assert_eq!(left, [], "{field}: {value}");
    }
    let bearer = format!("Bearer {BATCH}");
    let batch = identified(&clients, &[("authorization", &bearer)]).0.unwrap();
    assert_eq!((batch.client.to_string().as_str(), batch.class_max), ("batch", Priority::Low));
}

#[test]
fn stranger_is_told_whether_a_key_was_there() {
    let clients = two_clients(false);
    let offered = format!("openai-insecure-api-key.{CHAT}x");
    for fields in [&[][..], &[("authorization", "Bearer")], &[("authorization", " ")], &[("x-other", CHAT)]] {
        assert_eq!(identified(&clients, fields).0, Err(Stranger::NoKey), "{fields:?}");
    }
    for fields in [
        [("authorization", "Bearer tg-chat-ke")],
        [("authorization", "Bearer tg-chat-keyy")],
        [("authorization", "Basic tg-chat-key")],
        [("authorization", "Bearertg-chat-key")],
        [("x-api-key", "sk-x")],
        [("sec-websocket-protocol", &offered)],
    ] {
        assert_eq!(identified(&clients, &fields).0, Err(Stranger::WrongKey), "{fields:?}");
        assert!(!Stranger::WrongKey.to_string().contains("tg-chat"));
    }
}

#[test]
fn key_for_the_provider_goes_on_beside_one_for_us() {
    let clients = two_clients(false);
    let ours = format!("Bearer {CHAT}");
    let (caller, left) = identified(&clients, &[("authorization", &ours), ("x-api-key", "sk-theirs")]);
    assert_eq!(caller.unwrap().key, KeyId::of("sk-theirs"));
    assert_eq!(left, [("x-api-key".to_owned(), "sk-theirs".to_owned())]);
    let (caller, left) = identified(&clients, &[("authorization", "Bearer sk-theirs"), ("api-key", CHAT)]);
    let caller = caller.unwrap();
    assert_eq!((caller.client.to_string().as_str(), caller.key), ("chat", KeyId::of("sk-theirs")));
    assert_eq!(left, [("authorization".to_owned(), "Bearer sk-theirs".to_owned())]);
}

#[test]
fn no_key_of_ours_is_left_however_often_it_comes() {
    let clients = two_clients(false);
    let (chat, batch) = (format!("Bearer {CHAT}"), format!("Bearer {BATCH}"));
    let fields = [
        ("authorization", chat.as_str()),
        ("authorization", &batch),
        ("authorization", "Bearer other"),
        ("x-api-key", BATCH),
        ("api-key", CHAT),
    ];
    let (caller, left) = identified(&clients, &fields);
    assert_eq!(caller.unwrap().client.to_string(), "chat");
    assert_eq!(left, [("authorization".to_owned(), "Bearer other".to_owned())]);
}

#[test]
fn guesses_in_bulk_are_not_all_compared() {
    let clients = two_clients(false);
    let guesses =
        |wrong: usize| format!("{}{CHAT}", "openai-insecure-api-key.x,".repeat(wrong) + "openai-insecure-api-key.");
    let asked = |wrong| identified(&clients, &[("sec-websocket-protocol", &guesses(wrong))]).0;
    assert!(asked(KEYS_MAX - 1).is_ok());
    assert_eq!(asked(KEYS_MAX), Err(Stranger::ManyKeys));
    assert_eq!(asked(2_000), Err(Stranger::ManyKeys));
    // Where keys are not ours to judge, there may be as many as there are.
    let fields = [("sec-websocket-protocol", guesses(20))];
    assert!(identified(&Clients::default(), &[(fields[0].0, &fields[0].1)]).0.is_ok());
}

#[test]
fn other_offers_of_a_handshake_stay_as_they_are() {
    let clients = two_clients(false);
    let offered = format!("realtime, openai-insecure-api-key.{CHAT},openai-beta.realtime-v1");
    let (caller, left) = identified(&clients, &[("sec-websocket-protocol", &offered)]);
    assert_eq!(caller.unwrap().client.to_string(), "chat");
    assert_eq!(left, [("sec-websocket-protocol".to_owned(), "realtime, openai-beta.realtime-v1".to_owned())]);
    let ours = format!("Bearer {CHAT}");
    let theirs = "realtime,openai-insecure-api-key.sk-theirs";
    let (caller, left) = identified(&clients, &[("authorization", &ours), ("sec-websocket-protocol", theirs)]);
    assert_eq!(caller.unwrap().key, KeyId::of("sk-theirs"));
    assert_eq!(left, [("sec-websocket-protocol".to_owned(), theirs.to_owned())]);
}

#[test]
fn without_clients_anyone_may_ask_for_any_class_and_keeps_the_key() {
    let anyone = Clients::default();
    let (caller, left) = identified(&anyone, &[("authorization", "Bearer sk-1"), ("x-tidegate-client", "chat")]);
    let caller = caller.unwrap();
    assert_eq!(caller, Caller::anyone(KeyId::of("sk-1")));
    assert_eq!((caller.class, caller.class_max), (Priority::Normal, Priority::High));
    assert_eq!(left.len(), 2);
    assert_eq!(identified(&anyone, &[]).0, Ok(Caller::anyone(KeyId::PASS_THROUGH)));
}

#[test]
fn header_names_the_client_only_where_it_is_trusted() {
    let bearer = format!("Bearer {BATCH}");
    let fields = |named| [("authorization", bearer.as_str()), ("x-tidegate-client", named)];
    assert_eq!(name(&two_clients(false), &fields("chat")), "batch");
    let trusting = two_clients(true);
    assert_eq!(name(&trusting, &fields("chat")), "chat");
    assert_eq!(identified(&trusting, &fields("chat")).0.unwrap().class_max, Priority::High);
    let unheard_of = identified(&trusting, &fields("team-7")).0.unwrap();
    assert_eq!((unheard_of.client.to_string().as_str(), unheard_of.class_max), ("team-7", Priority::Low));
    // It is no key.
    assert_eq!(identified(&trusting, &[("x-tidegate-client", "chat")]).0, Err(Stranger::NoKey));
    // Without clients there is none to ask for.
    assert_eq!(name(&Clients::new(&[], true), &[("x-tidegate-client", "chat")]), "chat");
}

#[test]
fn placeholder_of_printed_settings_is_nobodys_key() {
    let printed = ClientKey::Plain(Secret::new(Secret::REDACTED.to_owned()));
    let clients = Clients::new(&[Client::new("chat".to_owned(), printed)], false);
    assert_eq!(identified(&clients, &[("api-key", Secret::REDACTED)]).0, Err(Stranger::WrongKey));
}

#[test]
fn name_that_is_none_is_refused() {
    let trusting = Clients::new(&[], true);
    let long = "x".repeat(65);
    for found in ["", "a b", "a,b", "a\"b", long.as_str()] {
        let refused = identified(&trusting, &[("x-tidegate-client", found)]).0.unwrap_err();
        assert!(matches!(&refused, Stranger::Misnamed(why) if why.found == found), "{refused}");
    }
    // The first could be what the client itself sent.
    assert!(identified(&trusting, &[("x-tidegate-client", "a"), ("x-tidegate-client", "b")]).0.is_err());
}
