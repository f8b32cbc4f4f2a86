mod reference;

use std::collections::BTreeSet;
use std::path::Path;

use toml::{Table, Value};

use super::{Config, EventRule, Faults, InteractionsConfig, RecordFormat, TimeUnit, Tombstone};

/// The smallest config that is right, with `extra` at its end.
pub(super) fn minimal(extra: &str) -> Result<Config, Faults> {
    Config::from_toml(&format!(
        r#"
        [query]
        id = "user"
        features = [{{ name = "user", kind = "id", field = "user", table = "user" }}]
        [item]
        id = "item"
        features = [{{ name = "item", kind = "id", field = "item", table = "item" }}]
        {extra}
        "#
    ))
}

fn keys(faults: Faults) -> Vec<String> {
    faults.0.into_iter().map(|fault| fault.key).collect()
}

/// Dotted paths of all keys, those of features and properties (which are the user's) left out.
fn paths(table: &Table, prefix: &str, out: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(table) => paths(table, &format!("{path}."), out),
            _ => {
                out.insert(path);
            }
        }
    }
}

#[test]
fn trainer_toml_shows_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/trainer.toml");
    let text = std::fs::read_to_string(&path).expect("the annotated config");
    let config = Config::load(Some(&path), &[]).expect("the annotated config is right");
    let defaults =
        Config { query: config.query.clone(), item: config.item.clone(), ..Config::default() };
    assert_eq!(config, defaults, "a value in config/trainer.toml is not the default");

    let (mut shown, mut all) = (BTreeSet::new(), BTreeSet::new());
    paths(&text.parse().expect("valid TOML"), "", &mut shown);
    paths(&config.to_toml().parse().expect("valid TOML"), "", &mut all);
    assert_eq!(shown, all, "config/trainer.toml and the code disagree on which keys there are");
    assert!(text.contains("# threshold = "), "the one key without a default is shown as a comment");
}

#[test]
fn every_config_of_the_repository_is_right() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut checked = 0;
    for entry in std::fs::read_dir(directory).expect("config/ is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            if let Err(faults) = Config::load(Some(&path), &[]) {
                panic!("{}:\n{faults}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} configs found");
}

#[test]
fn all_faults_are_reported_at_once_with_their_paths() {
    let faults = Config::from_toml(
        r#"
        devise = "cpu"
        [batch]
        size = "many"
        linger_ms = -1
        shuffle_events = 1000
        [loss]
        temperature = 0.0
        [query]
        id = "user"
        features = [{ name = "a", kind = "id", field = "f" }, { name = "a", kind = "moon" }]
        [item]
        id = "item"
        features = [{ name = "h", kind = "history", table = "t" }]
        [tables.typo]
        dim = 3
        "#,
    )
    .expect_err("much is wrong");
    let text = faults.to_string();
    let keys = keys(faults);
    for expected in [
        "devise",
        "batch.size",
        "batch.linger_ms",
        "batch.shuffle_events",
        "loss.temperature",
        "query.features[0].table",
        "query.features[1].kind",
        "query.features[1].name",
        "item.features[0].kind",
        "item.features[0].length",
        "tables.typo",
    ] {
        assert!(keys.iter().any(|key| key == expected), "{expected} is missing in:\n{text}");
    }
}

#[test]
fn a_catalogue_names_features_of_its_side_and_one_value_a_record() {
    let entry = |entry: &str| minimal(&format!("[[catalogue]]\ntopic = \"c\"\n{entry}"));
    let right = entry("id = \"@key\"\nside = \"query\"\nfeatures = { user = \"a.b\" }");
    let right = right.expect("valid");
    assert!(right.is_listed(millrace_events::EventSide::Query, "user"));
    let text = right.to_toml();
    assert_eq!(Config::from_toml(&text).expect("its own text"), right);
    assert_eq!(right.state_keys(), minimal("").expect("valid").state_keys(), "it may come later");
    for (wrong, key) in [
        ("", "catalogue[0].id"),
        ("id = \"a[].b\"", "catalogue[0].id"),
        ("id = \"a\"\nfeatures = { user = \"x\" }", "catalogue[0].features.user"),
        ("id = \"a\"\nfeatures = { item = \"x[].y\" }", "catalogue[0].features.item"),
        ("id = \"a\"\nhidden = { field = \"x\" }", "catalogue[0].hidden"),
        ("id = \"a\"\nend = [1]", "catalogue[0].end"),
        ("id = \"a\"\n[[catalogue]]\ntopic = \"d\"\nid = \"a\"", "catalogue[1].side"),
        ("id = \"a\"\n[kafka]\norder = \"arrival\"", "kafka.order"),
        ("id = \"a\"\n[kafka]\ntopic = \"c\"", "catalogue[0].topic"),
    ] {
        assert_eq!(keys(entry(wrong).expect_err(wrong)), [key], "{wrong}");
    }
}

#[test]
fn min_events_lie_within_a_batch() {
    for (min_events, right) in [(0, false), (1, true), (8, true), (9, false)] {
        let outcome = minimal(&format!("[batch]\nsize = 8\nmin_events = {min_events}"));
        match outcome {
            Ok(_) => assert!(right, "{min_events}"),
            Err(faults) => {
                assert!(!right, "{min_events}: {faults}");
                assert_eq!(keys(faults), ["batch.min_events"]);
            }
        }
    }
}

#[test]
fn the_merge_waits_for_ever_or_longer_than_an_idle_partition_takes_to_answer() {
    for (wait, right) in [(0, true), (1, false), (999, false), (1000, true)] {
        let outcome = minimal(&format!("[kafka]\nmerge_wait_ms = {wait}"));
        assert_eq!(outcome.is_ok(), right, "{wait}");
        outcome.err().into_iter().for_each(|faults| {
            assert_eq!(keys(faults), ["kafka.merge_wait_ms"]);
        });
    }
}

#[test]
fn min_events_may_change_between_runs_of_one_state() {
    let plain = minimal("").expect("right");
    let waits = minimal("[batch]\nmin_events = 64\nmin_events_wait_ms = 5").expect("right");
    assert_eq!(plain.state_keys(), waits.state_keys());
}

#[test]
fn overrides_win_and_need_no_quotes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ml-1m.toml");
    let sets = [
        "kafka.brokers=host:9093",
        "batch.size=77",
        "loss.temperature=0.5",
        "kafka.properties.security.protocol=SSL",
        "model.hidden=[8, 4]",
    ];
    let config = Config::load(Some(&path), &sets.map(str::to_owned)).expect("all are right");
    assert_eq!(config.kafka.brokers, "host:9093");
    assert_eq!((config.batch.size, config.loss.temperature), (77, 0.5));
    assert_eq!(config.kafka.properties["security.protocol"], "SSL");
    assert_eq!(config.model.hidden, [8, 4]);
    let wrong = Config::load(Some(&path), &["nonsense".to_owned(), "batch.sise=1".to_owned()]);
    assert_eq!(keys(wrong.expect_err("two faults")), ["--set nonsense", "batch.sise"]);
}

#[test]
fn reserved_properties_are_refused() {
    let extra = "[kafka.properties]\n\"auto.offset.reset\" = \"latest\"";
    let faults = minimal(extra).expect_err("the source owns this property");
    assert_eq!(keys(faults), ["kafka.properties.\"auto.offset.reset\""]);
}

#[test]
fn what_may_be_retuned_keeps_the_digest_and_what_may_not_changes_it() {
    let digest = |extra: &str| minimal(extra).expect("right").digest();
    let plain = digest("");
    for retuned in [
        "[embedding]\nlearning_rate = 0.3",
        "[frequency]\nalpha = 0.05",
        "[kafka]\nbrokers = \"elsewhere:9092\"",
        "[loss]\ntemperature = 0.2",
        "[checkpoint]\nkeep = 9",
        "[timestamp]\nahead_max_s = 60",
        "[embedding]\nadmit_after = 3",
        "[tables.user]\nadmit_after = 3",
        "[optimizer]\naverage_decay = 0.99",
    ] {
        assert_eq!(plain, digest(retuned), "{retuned}");
    }
    for reshaped in [
        "[embedding]\ndim = 16",
        "[tables.user]\ndim = 16",
        "[model]\nhidden = [7]",
        "[frequency]\nbuckets = 5",
        "[optimizer]\ndense = \"adam\"",
        "[loss]\ncorrection = \"plain\"",
    ] {
        assert_ne!(plain, digest(reshaped), "{reshaped}");
    }
}

#[test]
fn a_saved_config_reads_back_equal() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/globo.toml");
    let config = Config::load(Some(&path), &[]).expect("right");
    assert_eq!(Config::from_toml(&config.to_toml()).expect("just written"), config);
}

#[test]
fn keys_that_counted_steps_are_read_as_events() {
    let text = r#"
        [batch]
        size = 512
        [query]
        id = "q"
        features = [{ name = "q", kind = "id", field = "q", table = "q" }]
        [item]
        id = "i"
        features = [{ name = "i", kind = "id", field = "i", table = "i" }]
        [embedding]
        expiry_steps = 100
        [corpus]
        tombstone_steps = 7
        [negatives]
        cross_batch_after_steps = 3
    "#;
    let config = Config::from_toml(text).expect("old names are fine");
    assert_eq!(config.embedding.expiry_events, 51_200);
    assert_eq!(config.corpus.tombstone_events, 3584);
    assert_eq!(config.negatives.cross_batch_after_events, 1536);
    let both = text.replace("expiry_steps = 100", "expiry_steps = 100\nexpiry_events = 5");
    let faults = Config::from_toml(&both).expect_err("which of the two?");
    assert!(faults.to_string().contains("embedding.expiry_steps: unknown key"), "{faults}");
}

#[test]
fn no_message_shows_a_property() {
    const SECRET: &str = "31415926";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ml-1m.toml");
    let plain = format!("kafka.properties.sasl.password={SECRET}");
    let config = Config::load(Some(&path), &[plain]).expect("digits are a password, too");
    assert_eq!(config.kafka.properties["sasl.password"], SECRET);
    assert!(config.to_toml().contains(SECRET));
    assert!(!config.without_credentials().to_toml().contains(SECRET));

    let sets =
        [format!("kafka.properties.sasl.password:{SECRET}"), format!("kafka.properties.={SECRET}")];
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("wrong.toml");
    let texts = [
        format!("[kafka.properties]\n\"sasl.password\" = {SECRET}"),
        format!("[kafka.properties]\n\"sasl.password\" = \"{SECRET}"),
    ];
    for text in &texts {
        std::fs::write(&file, text).expect("the directory is ours");
        let faults = Config::load(Some(&file), &sets).expect_err("much is wrong").to_string();
        let saved = Config::from_toml(text).expect_err("wrong").to_string();
        assert!(!faults.contains(SECRET) && !saved.contains(SECRET), "{faults}\n{saved}");
        assert!(faults.contains("kafka.properties") || faults.contains("line 2"), "{faults}");
    }
}

#[test]
fn no_message_shows_the_registrys_login() {
    const SECRET: &str = "31415926";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ml-1m.toml");
    let sets = [format!("registry.user=u{SECRET}"), format!("registry.password=p{SECRET}")];
    let config = Config::load(Some(&path), &sets).expect("a login");
    assert!(config.to_toml().contains(&format!("p{SECRET}")));
    assert!(!config.without_credentials().to_toml().contains(SECRET));
    assert!(!config.state_keys().contains(SECRET) && !config.reading().contains(SECRET));
    for set in [
        format!("registry.password={SECRET}"),
        format!("registry.user={SECRET}"),
        format!("registry.password:{SECRET}"),
        format!("registry.password.x={SECRET}"),
        format!("registry.url=http://me:{SECRET}@registry"),
    ] {
        let faults = Config::load(Some(&path), &[set]).expect_err("a fault").to_string();
        assert!(faults.contains("registry.") && !faults.contains(SECRET), "{faults}");
    }
}

/// An integer, a boolean and a key without quotes are what people write.
#[test]
fn properties_may_lack_their_quotes() {
    let extra = "[kafka.properties]\nsecurity.protocol = \"SSL\"\n\"socket.timeout.ms\" = 9000\n\
                 \"socket.keepalive.enable\" = true";
    let properties = minimal(extra).expect("right").kafka.properties;
    assert_eq!(properties["security.protocol"], "SSL");
    assert_eq!(properties["socket.timeout.ms"], "9000");
    assert_eq!(properties["socket.keepalive.enable"], "true");
}

/// Topics that would feed back into the trainer.
#[test]
fn each_topic_has_a_name_of_its_own() {
    for (set, fault) in [
        ("[publish]\nversions_topic = \"interactions\"", "publish.versions_topic"),
        ("[publish]\nversions_topic = \"interactions-dead\"", "publish.versions_topic"),
        ("[publish]\ntopic = \"interactions\"", "publish.topic"),
        ("[kafka]\ndead_letter_topic = \"interactions\"", "kafka.dead_letter_topic"),
    ] {
        assert_eq!(keys(minimal(set).expect_err("a loop")), [fault], "{set}");
    }
}

/// A topic's own keys stand in the place of those of the first one, which keeps its own.
#[test]
fn a_further_topic_is_read_as_the_first_one_but_for_what_it_names() {
    let config = minimal(
        "[timestamp]\nfield = \"ts\"\n\
         [[interactions]]\ntopic = \"views\"\n\
         [[interactions]]\ntopic = \"orders\"\nformat = \"debezium\"\n\
         timestamp = { field = \"created_at\", unit = \"s\" }\nreward.field = \"stars\"\n\
         event = []\nquery = { id = \"buyer\", features = { user = \"buyer\" } }\n\
         [[event]]\nwhere = { field = \"kind\", equals = \"view\" }",
    );
    let config = config.expect("right");
    assert_eq!(Config::from_toml(&config.to_toml()).as_ref(), Ok(&config), "as it is stored");
    assert_eq!(config.topics().collect::<Vec<_>>(), ["interactions", "views", "orders"]);
    let [first, views, orders] = &config.by_topic().collect::<Vec<_>>()[..] else { panic!("3") };
    assert_eq!((&views.query, &views.event), (&first.query, &first.event));
    assert_eq!((&*orders.query.id, &*orders.query.features[0].field), ("buyer", "buyer"));
    assert_eq!((&*orders.item.id, &*first.query.id), ("item", "user"));
    assert_eq!((orders.kafka.format, orders.event.len()), (RecordFormat::Debezium, 0));
    assert_eq!(
        (&*orders.timestamp.field, orders.timestamp.unit),
        ("created_at", TimeUnit::Seconds)
    );
    assert_eq!((&*orders.reward.field, &*first.reward.field), ("stars", ""));
    let alone = minimal(
        "[timestamp]\nfield = \"ts\"\n[[event]]\nwhere = { field = \"kind\", equals = \"view\" }",
    );
    let same = alone.expect("right").state_keys() == config.state_keys();
    assert!(same, "a topic may come to a model that has run for months");
}

#[test]
fn each_topic_may_have_the_file_of_a_schema() {
    let config = minimal(
        "[kafka]\nformat = \"avro\"\nschema_file = \"views.avsc\"\n\
         [[interactions]]\ntopic = \"more-views\"\n\
         [[interactions]]\ntopic = \"orders\"\nschema_file = \"orders.avsc\"\n\
         [[interactions]]\ntopic = \"texts\"\nformat = \"json\"",
    );
    let config = config.expect("right");
    assert_eq!(Config::from_toml(&config.to_toml()).as_ref(), Ok(&config), "as it is stored");
    let files: Vec<String> = config.by_topic().map(|own| own.kafka.schema_file).collect();
    assert_eq!(files, ["views.avsc", "views.avsc", "orders.avsc", ""]);
}

#[test]
fn what_is_wrong_with_a_further_topic_is_said_with_its_key() {
    for (entry, fault) in [
        ("", "interactions[0].topic"),
        ("topic = \"interactions\"", "interactions[0].topic"),
        ("topic = \"interactions-dead\"", "interactions[0].topic"),
        ("topic = \"item-embeddings\"", "publish.topic"),
        ("topic = \"b\"\nitem.features = { price = \"p\" }", "interactions[0].item.features.price"),
        ("topic = \"b\"\nitem.features = { item = \"\" }", "interactions[0].item.features.item"),
        ("topic = \"b\"\nitem.id = \"a[\"", "interactions[0]: item.id"),
        ("topic = \"b\"\ntimestamp.zone = \"Mars\"", "interactions[0]: timestamp.zone"),
        ("topic = \"b\"\nformat = \"protobuf\"", "interactions[0]: registry.url"),
        ("topic = \"b\"\nreward.per = \"x\"", "interactions[0]: reward.per"),
        ("topic = \"b\"\nschema_file = \"b.avsc\"", "interactions[0]: kafka.schema_file"),
    ] {
        let faults = minimal(&format!("[[interactions]]\n{entry}")).expect_err("a fault");
        assert_eq!(keys(faults), [fault], "{entry}");
    }
}

/// What is read for one version serves another only if their records mean the same.
#[test]
fn what_says_how_a_record_is_read_is_part_of_the_reading() {
    let base = Config::from_toml(include_str!("../../config/demo.toml")).expect("valid");
    let with = |change: fn(&mut Config)| {
        let mut other = base.clone();
        change(&mut other);
        other.reading()
    };
    for differs in [
        with(|config| config.kafka.format = RecordFormat::Debezium),
        with(|config| config.kafka.tombstone = Tombstone::Skip),
        with(|config| config.kafka.id_bytes_max = 7),
        with(|config| config.timestamp.zone = "Europe/Berlin".into()),
        with(|config| config.event.push(EventRule::default())),
        with(|config| config.interactions.push(InteractionsConfig::default())),
    ] {
        assert_ne!(differs, base.reading());
    }
    assert_eq!(with(|config| config.kafka.brokers = "elsewhere:9092".into()), base.reading());
}

/// What was had is known from the histories that are kept, and from nothing else.
#[test]
fn to_leave_out_what_was_had_takes_a_history() {
    let films = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ml-1m.toml");
    for key in ["loss.mask_history", "retrieval.exclude_seen"] {
        let (section, name) = key.split_once('.').expect("a dot");
        let without = minimal(&format!("[{section}]\n{name} = true"));
        assert_eq!(keys(without.expect_err("nothing keeps any")), [key]);
        Config::load(Some(&films), &[format!("{key}=true")]).expect("films keep histories");
    }
}

#[test]
fn a_field_may_have_alternatives_and_each_is_checked() {
    let config = |id: &str, feature_field: &str| {
        let feature = |name: &str, field: &str| {
            format!("[{{ name = \"{name}\", kind = \"id\", field = \"{field}\", table = \"t\" }}]")
        };
        let (user, item) = (feature("u", "user"), feature("i", feature_field));
        let fields = format!(
            "[query]\nid = \"user | @key\"\nfeatures = {user}\n\
             [item]\nid = \"{id}\"\nfeatures = {item}\n"
        );
        Config::from_toml(&fields)
    };
    assert!(config("p.products[].id | p.id", "p.products[].id | p.id").is_ok());
    for (id, feature, key) in [
        ("a | ", "a", "item.id"),
        ("a | b[x]", "a", "item.id"),
        ("a[].id | id", "b[].id | id", "item.features[0].field"),
        ("a[].id | a[0].id", "id", "item.id"),
        ("@keys | a", "a", "item.id"),
    ] {
        assert_eq!(keys(config(id, feature).expect_err(id)), [key], "{id}, {feature}");
    }
}
