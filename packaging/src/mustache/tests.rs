use serde_json::{Value, json};

use super::*;

/// A pair that mustache.java has rendered; no result where it refused.
#[derive(serde::Deserialize)]
struct Golden {
    template: String,
    value: Value,
    result: Option<String>,
}

#[test]
fn every_pair_is_rendered_as_mustache_java_does_it() {
    let goldens = include_str!("../../tests/mustache/goldens.json");
    let goldens: Vec<Golden> = serde_json::from_str(goldens).unwrap();
    assert!(goldens.len() >= 200, "{}", goldens.len());
    let mut wrong = Vec::new();
    for golden in &goldens {
        let ours = Template::parse(&golden.template).and_then(|t| t.render(&golden.value));
        if ours.as_ref().ok() != golden.result.as_ref() {
            wrong.push(format!(
                "{:?} over {}\n  wanted {:?}\n  got    {ours:?}",
                golden.template, golden.value, golden.result
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        goldens.len(),
        wrong.join("\n")
    );
}

#[test]
fn names_that_stand_for_nothing_are_found_in_every_branch() {
    let template = Template::parse(
        "{{a.b}} {{a.c}} {{#no}}{{gone}}{{/no}}{{^yes}}{{lost}}{{/yes}}{{#list}}{{k}}{{z}}{{.}}{{/list}}\
         {{#none}}x{{/none}}{{#asJson}}doc{{/asJson}}{{#asJson}}other{{/asJson}}",
    )
    .unwrap();
    let document = json!({
        "a": {"b": null}, "no": false, "yes": true, "list": [{"k": 1}], "doc": "{}",
    });
    let found: Vec<String> = template.unresolved(&document).into_iter().collect();
    assert_eq!(found, ["a.c", "gone", "lost", "none", "other", "z"]);
    let (_, met) = template.render_watched(&document).unwrap();
    assert!(met.contains("a.c") && !met.contains("gone"), "{met:?}");
}

#[test]
fn errors_say_where_and_what() {
    let error = |text: &str| Template::parse(text).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            error("a\n{{}}"),
            error("{{#a}}\n{{/b}}"),
            error("\n{{#a}}\n"),
            error("{{/a}}"),
            error("{{a"),
            error("{{=x=}}"),
            error("{{>other}}"),
        ]
        .join("\n")
    );
}

#[test]
fn what_nests_without_end_or_grows_without_bound_is_refused() {
    let nested = "{{#a}}".repeat(60) + &"{{/a}}".repeat(60);
    assert_eq!(Template::parse(&nested), Err(Error::Deep));
    let itself = json!({"x": "{{#asJson}}x{{/asJson}}"});
    let template = Template::parse("{{#asJson}}x{{/asJson}}").unwrap();
    assert_eq!(template.render(&itself), Err(Error::Deep));
    let many: Vec<u32> = (0..100).collect();
    let grows = "{{#l}}".repeat(5) + "xxxxxxxxxx" + &"{{/l}}".repeat(5);
    let template = Template::parse(&grows).unwrap();
    assert_eq!(template.render(&json!({"l": many})), Err(Error::Result));
    let long = "x".repeat(LARGEST_TEMPLATE + 1);
    assert!(matches!(Template::parse(&long), Err(Error::Long(_))));
}

proptest::proptest! {
    #[test]
    fn no_template_is_a_panic(text in "([a-z.]|\\{\\{|\\}\\}|[#^/!&={}<>$%\n\r ]|\\PC){0,40}") {
        if let Ok(template) = Template::parse(&text) {
            let value = json!({"a": {"b": [1, "x", {"c": null}]}, "t": true, "s": "{{#asJson}}s{{/asJson}}"});
            let _ = template.render(&value);
            let _ = template.unresolved(&value);
        }
    }
}
