//! Words in their languages: inflected forms, and scripts without spaces.

use serde_json::json;

use crate::node::TestNode;

/// Asserts which document a lexical search finds first.
#[track_caller]
fn first(node: &TestNode, collection: &str, query: &str, expected: &str) {
    let found = node.found(collection, query, "lexical");
    assert_eq!(found.first().map(String::as_str), Some(expected), "{query}: {found:?}");
}

#[test]
fn spanish_words_are_found_in_other_forms() {
    let node = TestNode::start();
    node.add(
        "es",
        json!([
            {"id": "barcos", "text": "Los pescadores reparaban sus barcos de madera en el puerto antes de las tormentas del invierno."},
            {"id": "huerta", "text": "La huerta de mi abuela daba tomates y pimientos, y los vecinos venían a recogerlos cada verano."},
            {"id": "tren", "text": "El tren cruza las montañas nevadas y llega a la estación cuando ya es de noche en la ciudad."},
        ]),
    );
    for (query, expected) in [
        ("pescador", "barcos"),
        ("barco", "barcos"),
        ("tormenta", "barcos"),
        ("vecino", "huerta"),
        ("tomate", "huerta"),
        ("montaña", "tren"),
        ("montana", "tren"),
        ("MONTAÑAS", "tren"),
        ("estaciones", "tren"),
    ] {
        first(&node, "es", query, expected);
    }
}

#[test]
fn english_and_german_words_are_found_in_other_forms() {
    let node = TestNode::start();
    node.add(
        "mixed",
        json!([
            {"id": "en", "text": "The engineers were replacing the damaged pumps while the operators watched the gauges carefully."},
            {"id": "de", "text": "Die Techniker haben gestern die beschädigten Ventile der alten Anlagen ausgetauscht und anschließend geprüft."},
        ]),
    );
    for (query, expected) in [
        ("replace pump", "en"),
        ("engineer", "en"),
        ("operator gauge", "en"),
        ("Ventil", "de"),
        ("Anlage", "de"),
        ("beschädigte", "de"),
    ] {
        first(&node, "mixed", query, expected);
    }
}

#[test]
fn chinese_is_found_by_parts_of_a_sentence() {
    let node = TestNode::start();
    node.add(
        "zh",
        json!([
            {"id": "灯塔", "text": "古老的灯塔站在悬崖上，每天晚上为远处的渔船指引方向。守塔人已经在那里住了三十年。"},
            {"id": "图书馆", "text": "城市图书馆新开了一间安静的阅览室，学生们放学以后常常在那里做作业和看书。"},
            {"id": "茶园", "text": "春天来了，山坡上的茶园一片翠绿，采茶的姑娘们背着竹篓唱起了歌。"},
        ]),
    );
    for (query, expected) in [
        ("灯塔", "灯塔"),
        ("渔船", "灯塔"),
        ("守塔人住了多少年", "灯塔"),
        ("阅览室", "图书馆"),
        ("学生在哪里做作业？", "图书馆"),
        ("采茶", "茶园"),
        ("山坡上的茶园是什么颜色", "茶园"),
    ] {
        first(&node, "zh", query, expected);
    }
    assert_eq!(node.found("zh", "飞机", "lexical"), [""; 0], "no document speaks of aeroplanes");
}

#[test]
fn japanese_and_korean_are_found_too() {
    let node = TestNode::start();
    node.add(
        "cjk",
        json!([
            {"id": "駅", "text": "新しい駅の改札口は北側にあり、切符売り場は二階にあります。"},
            {"id": "寿司", "text": "港の市場では、朝早くから新鮮なマグロの寿司を食べることができます。"},
            {"id": "시장", "text": "우리 동네 시장에서는 매일 아침 신선한 생선과 채소를 팔고 있습니다."},
            {"id": "도서관", "text": "새로 지은 도서관은 공원 옆에 있으며 주말에도 문을 엽니다."},
        ]),
    );
    for (query, expected) in [
        ("改札口", "駅"),
        ("切符売り場はどこ", "駅"),
        ("マグロ", "寿司"),
        ("생선", "시장"),
        ("도서관", "도서관"),
        ("공원", "도서관"),
    ] {
        first(&node, "cjk", query, expected);
    }
}
