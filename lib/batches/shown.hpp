// shown: batches and their results as clients see them (messages-api.md §7).
//
// Threads  pure.
#pragma once

#include <string>
#include <string_view>

#include "messages/error.hpp"
#include "store/message_batches.hpp"

namespace parley::batches {

// `base_url`: "http://HOST", of which results_url is made once the batch has ended.
std::string batch_json(const store::MessageBatchRow& row, std::string_view base_url);
// {"type":"succeeded","message":…}
std::string succeeded_json(std::string_view message_json);
// {"type":"errored","error":{"type":"error","error":{…},"request_id":null}}
std::string errored_json(const messages::ApiError& error);
// A line of the results, with its newline.
std::string result_line(const store::BatchItemRow& row);

}  // namespace parley::batches
