//! What the doors take from whoever stands in front of them, and what they keep.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::stack::{Http, Stack};

#[tokio::test(flavor = "multi_thread")]
async fn two_tokens_in_one_request_are_one_too_many() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let token = HeaderValue::try_from(format!("Bearer {}", http.token.as_ref().unwrap())).unwrap();
    for other in [token.clone(), HeaderValue::from_static("Bearer x"), HeaderValue::from_static("")] {
        for two in [[&token, &other], [&other, &token]] {
            let mut headers = HeaderMap::new();
            for value in two {
                headers.append(AUTHORIZATION, value.clone());
            }
            let anonymous = Http { token: None, ..http.clone() };
            let answer = anonymous.request("GET", "/v1/workflows").headers(headers).send().await.unwrap();
            let (status, problem) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
            assert_eq!((status, &problem["code"]), (400, &json!("malformed")), "{problem}");
        }
    }
}
