// One participant of a secured DDS domain, as rmw_fastrtps sets one up, for test_security.py:
//   dds_security pub|sub ENCLAVE_FOLDER|- TOPIC DOMAIN SECONDS
// Writes or reads numbers; prints `refused`, or how many it wrote or got.
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>
#include <iostream>
#include <string>
#include <thread>

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;

struct Number : TopicDataType {
    Number() {
        setName("Number");
        m_typeSize = 16;
        m_isGetKeyDefined = false;
    }
    bool serialize(void* data, SerializedPayload_t* payload) override {
        std::memcpy(payload->data, data, 8);
        payload->length = 8;
        return true;
    }
    bool deserialize(SerializedPayload_t* payload, void* data) override {
        std::memcpy(data, payload->data, 8);
        return true;
    }
    std::function<uint32_t()> getSerializedSizeProvider(void*) override {
        return [] { return 8u; };
    }
    void* createData() override { return new uint64_t; }
    void deleteData(void* data) override { delete static_cast<uint64_t*>(data); }
    bool getKey(void*, InstanceHandle_t*, bool) override { return false; }
};

DomainParticipantQos secured(const std::string& folder) {
    DomainParticipantQos qos;
    if (folder == "-") return qos;
    auto& properties = qos.properties().properties();
    const std::string auth = "dds.sec.auth.builtin.PKI-DH.", file = "file://" + folder + "/";
    const std::string access = "dds.sec.access.builtin.Access-Permissions.";
    properties.emplace_back("dds.sec.auth.plugin", "builtin.PKI-DH");
    properties.emplace_back("dds.sec.access.plugin", "builtin.Access-Permissions");
    properties.emplace_back("dds.sec.crypto.plugin", "builtin.AES-GCM-GMAC");
    properties.emplace_back(auth + "identity_ca", file + "identity_ca.cert.pem");
    properties.emplace_back(auth + "identity_certificate", file + "cert.pem");
    properties.emplace_back(auth + "private_key", file + "key.pem");
    properties.emplace_back(access + "permissions_ca", file + "permissions_ca.cert.pem");
    properties.emplace_back(access + "governance", file + "governance.p7s");
    properties.emplace_back(access + "permissions", file + "permissions.p7s");
    return qos;
}

int end(const std::string& word, DomainParticipant* participant = nullptr) {
    std::cout << word << std::endl;
    if (participant) {  // else its shared memory stays
        participant->delete_contained_entities();
        DomainParticipantFactory::get_instance()->delete_participant(participant);
    }
    _exit(0);  // this Fast DDS does not survive OpenSSL's own end
}

int main(int, char** words) {
    const std::string role = words[1], topic_name = words[3];
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(atoi(words[5]));
    auto* factory = DomainParticipantFactory::get_instance();
    auto* participant = factory->create_participant(atoi(words[4]), secured(words[2]));
    if (!participant) return end("refused");
    TypeSupport type(new Number);
    type.register_type(participant);
    auto* topic = participant->create_topic(topic_name, type.get_type_name(), TOPIC_QOS_DEFAULT);
    uint64_t count = 0;
    if (role == "pub") {
        auto* publisher = participant->create_publisher(PUBLISHER_QOS_DEFAULT);
        auto* writer = publisher->create_datawriter(topic, DATAWRITER_QOS_DEFAULT);
        if (!writer) return end("refused", participant);
        for (; std::chrono::steady_clock::now() < until; ++count) {
            writer->write(&count);
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
    } else {
        DataReaderQos qos = DATAREADER_QOS_DEFAULT;
        qos.reliability().kind = RELIABLE_RELIABILITY_QOS;
        auto* subscriber = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT);
        auto* reader = subscriber->create_datareader(topic, qos);
        if (!reader) return end("refused", participant);
        uint64_t number;
        SampleInfo info;
        while (std::chrono::steady_clock::now() < until) {
            while (reader->take_next_sample(&number, &info) == ReturnCode_t::RETCODE_OK)
                count += info.valid_data;
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }
    return end(std::to_string(count), participant);
}
