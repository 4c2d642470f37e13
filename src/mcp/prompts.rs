//! Prompts: ready questions that put the tools to use.

use rmcp::model::{GetPromptResult, Prompt, PromptArgument, PromptMessage, Role};

use super::{Arguments, ToolError};

/// Name of the prompt that answers with citations.
pub(super) const ANSWER: &str = "answer_with_citations";
/// Name of the prompt that summarises a collection.
pub(super) const SUMMARISE: &str = "summarize_collection";

/// The prompts, in a fixed order.
pub(super) fn list() -> Vec<Prompt> {
    vec![
        Prompt::new(
            ANSWER,
            Some("Answers a question from the node's documents and cites each statement"),
            Some(vec![
                PromptArgument::new("question").with_description("What to answer").with_required(true),
                PromptArgument::new("collection").with_description("Where to look; everywhere when left out"),
            ]),
        )
        .with_title("Answer with citations"),
        Prompt::new(
            SUMMARISE,
            Some("Tells what a collection is about, from its documents"),
            Some(vec![
                PromptArgument::new("collection").with_description("Name of the collection").with_required(true),
            ]),
        )
        .with_title("Summarise a collection"),
    ]
}

/// A prompt with its arguments filled in.
pub(super) fn get(name: &str, arguments: &Arguments) -> Result<GetPromptResult, ToolError> {
    let text = |name: &str| {
        arguments.get(name).and_then(|value| value.as_str()).map(str::trim).filter(|text| !text.is_empty())
    };
    let required =
        |name: &str| text(name).ok_or_else(|| ToolError::bad_argument(format!("the argument '{name}' is missing")));
    let (description, instruction) = match name {
        ANSWER => {
            let question = required("question")?;
            let place = match text("collection") {
                Some(collection) => format!(" with collections [\"{collection}\"]"),
                None => String::new(),
            };
            (
                "Answer with citations",
                format!(
                    "Answer this question from the documents of this server:\n\n{question}\n\n\
                     Call the tool `search`{place}; search again in other words when the passages do not answer it, and \
                     call `fetch` with a passage's id when you need what surrounds it. Use only what the passages say. \
                     After each statement give the `id` of the passage it rests on, in square brackets. When the \
                     documents do not answer the question, say so and name what you searched for."
                ),
            )
        }
        SUMMARISE => {
            let collection = required("collection")?;
            (
                "Summarise a collection",
                format!(
                    "Tell what the collection \"{collection}\" of this server is about, in one paragraph and a list of its \
                     main topics.\n\nCall `describe_collection`, then `list_documents`, then `search` in it for the topics \
                     that the titles suggest. Name the documents that a newcomer should read first, with their ids."
                ),
            )
        }
        _ => {
            return Err(ToolError::bad_argument(format!(
                "there is no prompt '{name}'; there are {ANSWER} and {SUMMARISE}"
            )));
        }
    };
    let mut result = GetPromptResult::new(vec![PromptMessage::new_text(Role::User, instruction)]);
    result.description = Some(description.to_owned());
    Ok(result)
}
