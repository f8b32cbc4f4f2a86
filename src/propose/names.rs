//! What fields are usually called, best first.

/// Who asks.
pub(super) const QUERIES: &[&str] = &[
    "userid",
    "uid",
    "customerid",
    "memberid",
    "accountid",
    "profileid",
    "viewerid",
    "shopperid",
    "readerid",
    "playerid",
    "user",
    "customer",
    "userpseudoid",
    "visitorid",
    "clientid",
    "distinctid",
    "anonymousid",
    "domainuserid",
    "networkuserid",
    "deviceid",
    "cookieid",
    "visitor",
    "sessionid",
    "session",
    "queryid",
    "actorid",
    "source",
];

/// What there is to find.
pub(super) const ITEMS: &[&str] = &[
    "itemid",
    "productid",
    "sku",
    "articleid",
    "contentid",
    "videoid",
    "movieid",
    "trackid",
    "songid",
    "postid",
    "listingid",
    "offerid",
    "adid",
    "documentid",
    "docid",
    "assetid",
    "newsid",
    "goodsid",
    "bookid",
    "courseid",
    "recipeid",
    "hotelid",
    "pinid",
    "gameid",
    "appid",
    "isbn",
    "asin",
    "variantid",
    "item",
    "product",
    "article",
    "movie",
    "video",
    "track",
    "song",
    "content",
    "book",
    "objectid",
    "entityid",
    "targetid",
    "itemcode",
    "productcode",
    "pageid",
    "pageurlpath",
    "url",
    "target",
];

/// When it happened.
pub(super) const TIMES: &[&str] = &[
    "eventtimestamp",
    "eventtime",
    "timestamp",
    "ts",
    "time",
    "createdat",
    "occurredat",
    "derivedtstamp",
    "eventts",
    "datetime",
    "timems",
    "timestampms",
    "unixtime",
    "unixtimestamp",
    "servertime",
    "collectortstamp",
    "dvcecreatedtstamp",
    "originaltimestamp",
    "clicktimestamp",
    "sentat",
    "receivedat",
    "updatedat",
    "eventdate",
    "date",
    "at",
    "tsms",
    "epoch",
];

/// What happened.
pub(super) const EVENTS: &[&str] = &[
    "eventname",
    "eventtype",
    "event",
    "action",
    "eventaction",
    "interactiontype",
    "interaction",
    "activity",
    "verb",
    "behavior",
    "behaviortype",
    "type",
    "kind",
];

/// How good it was.
pub(super) const RATINGS: &[&str] = &["rating", "stars", "score", "grade"];

/// How long somebody stayed, and how long the item lasts.
pub(super) const WATCHED: &[&str] = &[
    "watchtime",
    "watched",
    "watcheds",
    "secondswatched",
    "watchedseconds",
    "playtime",
    "played",
    "listened",
    "timespent",
    "dwelltime",
];
pub(super) const LASTS: &[&str] =
    &["duration", "durations", "length", "runtime", "videoduration", "totaltime"];

/// Words in the name of an event that is none to learn from.
const NOTHING: &[&str] = &[
    "remove",
    "delete",
    "refund",
    "cancel",
    "dislike",
    "unlike",
    "hide",
    "block",
    "pageview",
    "page_view",
    "page view",
    "scroll",
    "heartbeat",
    "ping",
    "login",
    "logout",
    "signup",
    "sign_up",
    "search",
    "session",
    "identify",
    "error",
    "impression",
    "exposure",
    "first_visit",
    "engagement",
    "screen",
];

/// Words in the name of an event, and what it is worth beside others.
const WORTH: [(f32, &[&str]); 3] = [
    (1.0, &["purchase", "buy", "order", "transaction", "conversion", "paid", "booking", "rent"]),
    (
        0.5,
        &[
            "cart", "basket", "added", "like", "favo", "save", "share", "follow", "bookmark",
            "subscri", "wishlist", "rate", "review", "complete", "download", "checkout",
        ],
    ),
    (0.2, &["click", "view", "watch", "play", "read", "select", "open", "listen", "visit"]),
];

/// What an event of this name is worth; none: nothing, or nobody knows.
pub(super) fn worth(event: &str) -> Option<f32> {
    let name = event.to_lowercase();
    let holds = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if holds(NOTHING) {
        return None;
    }
    WORTH.iter().find(|(_, words)| holds(words)).map(|(worth, _)| *worth)
}

/// A path's last name, without case and punctuation; an `id` or `name` alone with what it is one
/// of: `user.id` and `items[].id` are a `userid` and an `itemid`.
pub(super) fn plain(path: &str) -> String {
    let letters = |text: &str| {
        let kept = text.chars().filter(char::is_ascii_alphanumeric);
        kept.collect::<String>().to_lowercase()
    };
    let mut parts = path.rsplit('.');
    let last = letters(parts.next().unwrap_or_default());
    if last != "id" && last != "name" && last != "code" {
        return last;
    }
    let of = parts.next().map(letters).unwrap_or_default();
    let of = of.strip_suffix('s').map_or(of.clone(), str::to_owned);
    of + &last
}

/// Shorter names end many others: every `status` ends with a `us`.
const ENDING: usize = 6;

/// The place of a path's name in a list; behind them all, that of a name which ends like one of the
/// list, as `click_article_id` does; none: it is not there.
pub(super) fn rank(path: &str, names: &[&str]) -> Option<usize> {
    let plain = plain(path);
    let ends = |name: &&str| name.len() >= ENDING && plain.ends_with(name);
    let exact = names.iter().position(|name| *name == plain);
    exact.or_else(|| Some(names.len() + names.iter().position(ends)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_however_they_are_spelt() {
        for path in ["user_id", "userId", "context.User-ID", "user.id", "users[].id"] {
            assert_eq!(rank(path, QUERIES), Some(0), "{path}");
        }
        assert_eq!(plain("items[].item_id"), "itemid");
        assert_eq!(rank("click_article_id", ITEMS), Some(ITEMS.len() + 3));
        assert_eq!(rank("price", ITEMS), None);
    }

    #[test]
    fn events_are_worth_what_their_names_say() {
        let worths = [
            "Order Completed",
            "add_to_cart",
            "Product Added",
            "Product Clicked",
            "page_view",
            "x",
        ];
        let expected = [Some(1.0), Some(0.5), Some(0.5), Some(0.2), None, None];
        assert_eq!(worths.map(worth), expected);
    }
}
