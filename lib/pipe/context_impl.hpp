// The inside of Context, for link.cpp alone.
#pragma once

#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <unordered_map>
#include <vector>
#include <zmq.hpp>

#include "pipe/context.hpp"

namespace parley::pipe {

struct Context::Impl {
    Impl();
    ~Impl();
    void allow(const std::vector<std::string>& keys);  // starts the ZAP handler at the first call
    void tell_refused(const std::string& key, const std::string& address);
    void serve_zap(zmq::socket_t& requests, zmq::socket_t& stop);

    zmq::context_t zmq;
    std::mutex lock;
    std::unordered_set<std::string> allowed;
    std::unordered_map<std::string, int64_t> told;  // the ZAP thread's: refused, and when last said
    std::thread zap;
};

}  // namespace parley::pipe
